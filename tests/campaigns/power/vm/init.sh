#!/bin/busybox sh
# The machine, from its first process on. What it says goes out at once, to where its power doesn't reach: records of
# the oracle's ledger to /dev/hvc0, what it sees to /dev/hvc1. The console has the kernel's words and the daemon's.
# The environment comes from the kernel's command line: `life`, `seed`, `task` (work or judge), `kind` of file system.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# One that is not there is part of the kernel.
for module in $(cat /modules/order); do [ ! -e /modules/$module.ko ] || insmod /modules/$module.ko; done
until [ -e /dev/vda ] && [ -e /dev/hvc1 ]; do usleep 10000; done
# Records hold bytes that a terminal would change.
stty raw -echo < /dev/hvc0
stty raw -echo < /dev/hvc1

report() { # NAME: what comes in, line by line
    { echo "== $1"; cat; echo "== whole"; } > /tmp/report
    cat /tmp/report > /dev/hvc1
}

fail() {
    echo "== failed $1" > /dev/hvc1
    cat /tmp/log
    sleep 1000
}

grep -q back /sys/block/vda/queue/write_cache || fail "the disk's cache is not volatile, says the kernel"
mount -t $kind /dev/vda /disk || fail "no file system"
mkdir -p /disk/inbox /disk/files /disk/done && sync /disk
# What was being put down when the power went never had a name.
rm -f /disk/inbox/.put.part /disk/files/.put.part
find /disk/inbox /disk/files /disk/done -type f -exec sha256sum {} + | report files

: > /tmp/log
ingestd run --config /ingestd.toml 2> /tmp/log &
daemon=$!
until grep -q ' ready ' /tmp/log; do
    kill -0 $daemon || fail "the daemon ended by itself"
    usleep 50000
done
ingestd list --json --limit 0 --config /ingestd.toml | report jobs
: | report ready

# Puts a file down for good, whole under its name, and says so. Its content follows from its name.
put() { # FOLDER NAME
    path=$1/$2
    yes $2 | head -n ${2##*-} > $1/.put.part
    sum=$(sha256sum < $1/.put.part)
    sync $1/.put.part && mv $1/.put.part $path && sync $1 && printf 'put\t%s\t%s\0' ${sum%% *} $path > /dev/hvc0
}

# Adds files and says which jobs they are, if it was told.
add() {
    ingestd add --config /ingestd.toml "$@" > /tmp/ids || return
    for id in $(cat /tmp/ids); do
        printf 'ok\t%s\t%s\0' $id $1 > /dev/hvc0
        shift
    done
}

work() {
    RANDOM=$seed
    number=0 added=
    while :; do
        number=$((number + 1))
        name=$life-$number-$((RANDOM % 2000 + 1))
        case $((RANDOM % 8)) in
            0 | 1 | 2) put /disk/inbox $name ;;
            3 | 4) put /disk/files $name && added="$added $path" ;;
            5 | 6) [ -z "$added" ] || { add $added && added=; } ;;
            7) ingestd list --state completed -q --limit 0 --config /ingestd.toml | report completed ;;
        esac
    done
}

# Everything is done, and what there is is said, as it is on the disk after an orderly end.
judge() {
    add $(find /disk/files -type f)
    idle='"pending":0,"running":0,"retrying":0'
    until [ -z "$(find /disk/inbox -type f)" ] && ingestd status --json --config /ingestd.toml | grep -q $idle; do
        kill -0 $daemon || fail "the daemon ended by itself"
        sleep 1
    done
    ingestd db checkpoint --config /ingestd.toml || fail "no checkpoint"
    ingestd status --json --config /ingestd.toml | report status
    ingestd list --json --limit 0 --config /ingestd.toml | report jobs
    kill $daemon
    wait $daemon || fail "the daemon's end was not in order"
    ingestd db check --config /ingestd.toml || fail "the database is damaged"
    umount /disk && mount -t $kind /dev/vda /disk
    find /disk/inbox /disk/files /disk/done /disk/state/spool -type f -exec sha256sum {} + | report files
    umount /disk || fail "somebody is still at the disk"
    : | report end
    reboot -f
}

$task
