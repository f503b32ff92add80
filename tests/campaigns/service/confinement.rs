//! Confinement: what the unit withholds from processors, what each drop-in gives back, and where a secret is seen.

use super::*;

/// A drop-in as it is shipped.
macro_rules! shipped {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../systemd/ingestd.service.d/", $name, ".conf.example")))
    };
}

/// A processor that says of each thing that it tries whether it can, one word a line.
const PROBE: &str = r#"#!/bin/sh
try() { name=$1; shift; if why=$("$@" 2>&1 >/dev/null); then echo "$name yes"; else echo "$name no: $? $why"; fi; }
{
try write-srv sh -c 'echo x > /srv/done/probe'
try write-usr sh -c 'echo x > /usr/local/probe'
try write-etc sh -c 'echo x > /etc/probe'
try write-state sh -c 'echo x > /var/lib/ingestd/work/probe'
try read-home cat /home/ann/file
try write-home sh -c 'echo x > /home/ann/probe'
try see-tmp cat /tmp/shared
try write-tmp sh -c 'echo x > /tmp/probe'
try see-others test -e /proc/1/cmdline
try suid sh -c 'cp /bin/true work-suid && chmod u+s work-suid'
try namespace unshare -Ur true
try device sh -c 'cat /dev/kmsg'
try jit python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'
try netlink ip link
try capability sh -c "grep -qv '^CapEff:.*[1-9a-f]' /proc/self/status && ! grep -q '^CapEff:.0*$' /proc/self/status"
try ambient sh -c "! grep -q '^CapAmb:.0*$' /proc/self/status"
} > "/srv/outside/probe"
"#;

/// What the probe found, by name.
#[track_caller]
fn probed(service: &Service, name: &str) -> BTreeMap<String, String> {
    let found = service.machine.outside().join("probe");
    let _ = fs::remove_file(&found);
    service.put(name);
    service.wait_drained();
    let words = fs::read_to_string(&found).unwrap();
    words.lines().filter_map(|line| line.split_once(' ')).map(|(name, can)| (name.into(), can.into())).collect()
}

#[track_caller]
fn can(found: &BTreeMap<String, String>) -> Vec<&str> {
    found.iter().filter(|(_, can)| *can == "yes").map(|(name, _)| name.as_str()).collect()
}

#[test]
fn processors_can_do_what_the_unit_leaves_them_and_each_drop_in_adds_what_it_says() {
    if !Machine::is_possible() {
        return;
    }
    let service = Service::installed("sh /srv/outside/probe.sh", "");
    fs::write(service.machine.outside().join("probe.sh"), PROBE).unwrap();
    service.machine.script(
        "install -d -m 755 /home/ann; echo x > /home/ann/file; echo x > /tmp/shared; install -d /srv/failed; \
         chown ingestd /home/ann /srv/failed; chmod 666 /tmp/shared; echo secret > /etc/ingestd/ingest-token; \
         chmod 600 /etc/ingestd/ingest-token",
    );
    let plain = probed(&service, "plain");
    // `/srv/done` is what the test opened for itself.
    assert_eq!(can(&plain), ["write-srv", "write-state", "write-tmp"], "{plain:?}");
    let shipped: [((&str, &str), &[&str]); 9] = [
        (shipped!("read-homes"), &["read-home"]),
        (shipped!("jit"), &["jit"]),
        (shipped!("network"), &["netlink"]),
        (shipped!("shared-tmp"), &["see-tmp"]),
        (shipped!("leases"), &[]),
        (shipped!("write-folder"), &[]),
        (shipped!("group-access"), &[]),
        (shipped!("grace"), &[]),
        (shipped!("secret"), &[]),
    ];
    let mut expected = can(&plain);
    for ((name, text), adds) in shipped {
        service.drop_in(name, text);
        expected.extend(adds);
    }
    service.systemctl(&["restart", "ingestd"]);
    let all = probed(&service, "all");
    expected.sort_unstable();
    assert_eq!(can(&all), expected, "{all:?}");
    assert_eq!(service.property("TimeoutStopUSec"), "10min");
    assert_eq!(service.property("StateDirectoryMode"), "2770");
    // The daemon has the capability, and hands it on to nobody.
    let outer = service.machine.outer_pid(service.main_pid());
    let status = fs::read_to_string(format!("/proc/{outer}/status")).unwrap();
    let ambient = status.lines().find(|line| line.starts_with("CapAmb:")).unwrap();
    assert_eq!(u64::from_str_radix(ambient.split_whitespace().last().unwrap(), 16).unwrap(), 1 << 28, "CAP_LEASE");
}

#[test]
fn a_secret_reaches_its_pipeline_and_is_seen_nowhere_else() {
    const SECRETS: [&str; 2] = ["credential-4711", "variable-4712"];
    if !Machine::is_possible() {
        return;
    }
    let service = Service::installed("tr '\\0' '\\n' < /proc/self/environ > /srv/outside/environment", "");
    service.machine.script(&format!(
        "(umask 077; echo {} > /etc/ingestd/ingest-token); install -d -o ingestd /srv/secret",
        SECRETS[0]
    ));
    service.drop_in("secret", shipped!("secret").1);
    service.drop_in("variable", &format!("[Service]\nEnvironment=VARIABLE={}\n", SECRETS[1]));
    service.configure(
        "secret",
        "[pipeline.secret]\nkind = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", \"echo $A $B > /srv/outside/told; exit 64\"]\n\
         env = { A = \"${file:${CREDENTIALS_DIRECTORY}/ingest-token}\", B = \"${VARIABLE}\" }\n\
         [watch.secret]\npath = \"/srv/secret\"\npipeline = \"secret\"\nsettle = \"0s\"\n",
    );
    service.systemctl(&["restart", "ingestd"]);
    service.put("plain");
    fs::write(service.machine.path("/srv/secret/a"), "a").unwrap();
    wait_until("the secret's pipeline has failed", || service.jobs().iter().any(|job| job["state"] == "failed"));
    service.wait_drained();
    let told = fs::read_to_string(service.machine.outside().join("told")).unwrap();
    assert_eq!(told.split_whitespace().collect::<Vec<_>>(), SECRETS, "the pipeline has both");

    let mut seen = vec![(
        "another pipeline's environment",
        fs::read_to_string(service.machine.outside().join("environment")).unwrap(),
    )];
    seen.push(("the journal", service.machine.ok(&["journalctl", "--no-pager", "-o", "export"])));
    seen.push(("the unit", service.systemctl(&["status", "ingestd", "--no-pager", "-l"])));
    for command in ["config show", "status", "pipeline show secret", "list", "failures", "history", "health"] {
        // With what the service has, as whoever asks on its behalf.
        let credentials = "CREDENTIALS_DIRECTORY=/etc/ingestd";
        let line = format!("sudo {credentials} VARIABLE={} ingestd {command}", SECRETS[1]);
        for json in ["", " --json"] {
            let output = service.machine.run(&["sh", "-c", &format!("{line}{json}")]);
            seen.push((command, output.stdout + &output.stderr));
        }
    }
    let mut seen_in_database = false;
    for (place, text) in &seen {
        assert!(!text.is_empty(), "{place} says nothing");
        assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "a secret is in {place}:\n{text}");
    }
    // New rows are in the log until a checkpoint brings them over.
    for file in ["ingestd.db", "ingestd.db-wal"] {
        let bytes = fs::read(service.machine.path("/var/lib/ingestd").join(file)).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        assert!(!SECRETS.iter().any(|secret| holds(secret)), "a secret is in {file}");
        seen_in_database |= holds("/srv/secret");
    }
    assert!(seen_in_database, "the rows of the secret's job are in neither file");
    let credential = service.machine.run(&["stat", "-c", "%U %a", "/run/credentials/ingestd.service/ingest-token"]);
    assert!(credential.stdout.trim().ends_with("440") || credential.stdout.trim().ends_with("400"), "{credential:?}");
}
