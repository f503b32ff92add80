//! Commands that write to the queue without a daemon, killed at any call: what they said holds, and given again they go on.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::oracle::Word;
use crate::portion::Portion;
use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::support::{Daemon, Place, long};
use crate::tracer::{Counts, Plan, Seen, Traced};

/// Points of each command in the quick form.
const QUICK: usize = 5;
/// Lines of each list.
const LINES: usize = 9;

/// The points at which a command is killed, from 1: chance's, or all of them.
pub(super) fn points(random: &mut fastrand::Rng, all: usize) -> Box<dyn Iterator<Item = usize>> {
    if long() {
        Box::new(Portion::of("kill: a command", (1..=all).collect(), random))
    } else {
        Box::new((0..QUICK).map(|_| random.usize(1..=all)).collect::<Vec<_>>().into_iter())
    }
}

/// What a command does to the state directory.
pub(super) fn changes(place: &Place) -> impl Fn(&Seen) -> bool + Send + Clone + 'static {
    let state = vec![place.at("state")];
    move |seen| seen.writes && seen.is_under(&state)
}

/// How many calls that is where nothing breaks it.
pub(super) fn measure(place: &Place, command: Command) -> usize {
    let (output, counts) = Traced::finish(command, Plan::count(changes(place)));
    assert_eq!(output.code, 0, "{output:?}");
    counts.all()
}

pub(super) fn kill(place: &Place, command: Command, number: usize, after: bool) -> (crate::support::Output, Counts) {
    let counts = changes(place);
    Traced::finish(command, if after { Plan::kill_after(number, counts) } else { Plan::kill_before(number, counts) })
}

#[test]
fn commands_killed_at_any_call_go_on_when_they_are_given_again() {
    if !Traced::is_possible() {
        return;
    }
    let seed = Seed::of("kill::commands");
    let mut random = seed.random();
    let scenario = Scenario::new("");
    let mut points = create(&scenario, &mut random);
    points += add(&scenario, &mut random);
    points += sync(&scenario, &mut random);
    let mut daemon = Daemon::start(&scenario.place);
    scenario.wait_drained();
    let figures = scenario.oracle.verdict(&scenario.place, 0);
    assert_eq!(daemon.stop(), 0);
    scenario.place.ok(&["db", "check"]);
    seed.report(format!("{points} points killed, {figures}"));
}

/// The command that makes the database.
fn create(scenario: &Scenario, random: &mut fastrand::Rng) -> usize {
    let (place, state) = (&scenario.place, scenario.place.at("state"));
    let migrate = || place.configured(&["db", "migrate"]);
    let all = measure(place, migrate());
    let mut killed = 0;
    for number in points(random, all) {
        fs::remove_dir_all(&state).unwrap();
        kill(place, migrate(), number, random.bool());
        place.ok(&["db", "migrate"]);
        place.ok(&["db", "check"]);
        killed += 1;
    }
    killed
}

fn add(scenario: &Scenario, random: &mut fastrand::Rng) -> usize {
    let (place, oracle) = (&scenario.place, &scenario.oracle);
    let file = |name: &str| {
        let path = place.at("files").join(format!("added-{name}"));
        oracle.put(&path, name);
        let mut command = place.configured(&["add"]);
        command.arg(&path);
        (path, command)
    };
    let all = measure(place, file("first").1);
    let mut killed = 0;
    for number in points(random, all) {
        let (path, command) = file(&killed.to_string());
        oracle.told(&path, &kill(place, command, number, random.bool()).0);
        let again = oracle.add(place, &path, &[]);
        assert!(matches!(again, Word::Ok(_)), "{again:?} after a kill at {number}");
        killed += 1;
    }
    killed
}

fn sync(scenario: &Scenario, random: &mut fastrand::Rng) -> usize {
    let (place, oracle) = (&scenario.place, &scenario.oracle);
    let list = |name: &str| {
        let mut lines = String::new();
        for line in 0..LINES {
            let path = place.at("files").join(format!("listed-{name}-{line}"));
            oracle.put(&path, format!("{name} {line}"));
            lines.push_str(path.to_str().unwrap());
            lines.push('\n');
        }
        let list = place.at(format!("list-{name}"));
        fs::write(&list, lines).unwrap();
        list
    };
    let command = |list: &Path| place.configured(&["sync", list.to_str().unwrap(), "--batch", "2"]);
    let all = measure(place, command(&list("first")));
    let mut killed = 0;
    for number in points(random, all) {
        let list = list(&killed.to_string());
        kill(place, command(&list), number, random.bool());
        let again = crate::support::finish(&mut command(&list));
        assert_eq!(again.code, 0, "{again:?} after a kill at {number}");
        killed += 1;
    }
    killed
}
