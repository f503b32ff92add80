//! What befalls the daemon: kills, too few watches, a root that goes away and comes back.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::*;

/// So few watches that the tree soon has more folders.
const FEW: u32 = 12;

/// A daemon, in namespaces of its own where they can be made.
fn start(place: &Place, confined: bool, few: bool) -> Daemon {
    if confined {
        let limits = Limits { watches: few.then_some(FEW), ..Limits::default() };
        Confined::start(place, limits, "").daemon
    } else {
        Daemon::start(place)
    }
}

/// Reigns until the end; answers the last daemon, which nothing befalls any more.
pub fn reign(place: &Place, seed: u64, end: Instant) -> Daemon {
    let mut random = fastrand::Rng::with_seed(seed);
    let confined = Confined::is_possible();
    let mut daemon = start(place, confined, random.bool());
    while Instant::now() < end {
        sleep(Duration::from_millis(random.u64(100..1_200)));
        if random.u32(..5) < 3 {
            daemon.kill();
            // Much happens while nobody watches.
            sleep(Duration::from_millis(random.u64(..400)));
            daemon = start(place, confined, random.bool());
        } else {
            move_root(place, &mut random);
        }
    }
    daemon
}

fn move_root(place: &Place, random: &mut fastrand::Rng) {
    let (inbox, away) = (place.inbox(), place.at("away"));
    let empty = random.bool();
    fs::rename(&inbox, &away).unwrap();
    if empty {
        fs::create_dir(&inbox).unwrap();
    }
    sleep(Duration::from_millis(random.u64(..700)));
    if empty {
        fs::remove_dir(&inbox).unwrap();
    }
    fs::rename(&away, &inbox).unwrap();
}
