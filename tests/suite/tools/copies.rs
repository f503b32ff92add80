//! Copies, moves and unpacked archives: cp, mv, tar, unzip, git.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Inbox, noise};
use crate::support::*;

#[test]
fn cp_is_taken_once_and_whole() {
    if !has_tools(&["cp"]) {
        return;
    }
    for inbox in Inbox::both("300ms") {
        let (large, small) = (noise(1, 30_000_000), noise(2, 100));
        fs::create_dir(inbox.outside("from")).unwrap();
        fs::write(inbox.outside("from/large"), &large).unwrap();
        fs::write(inbox.outside("from/small"), &small).unwrap();
        run(Command::new("cp").arg("-a").arg(inbox.outside("from")).arg(inbox.at("to")));
        run(Command::new("cp").arg(inbox.outside("from/small")).arg(inbox.at("alone")));
        inbox.holds(&[("to/large", &large), ("to/small", &small), ("alone", &small)]);
        // Over a file that is there: truncated and written anew.
        run(Command::new("cp").arg(inbox.outside("from/large")).arg(inbox.at("alone")));
        inbox.holds(&[("to/large", &large), ("to/small", &small), ("alone", &small), ("alone", &large)]);
    }
}

#[test]
fn mv_from_outside_is_taken_once_from_the_same_filesystem_and_from_another() {
    if !has_tools(&["mv"]) {
        return;
    }
    let inbox = Inbox::new("300ms");
    let (file, folded, far) = (noise(1, 200_000), noise(2, 5_000), noise(3, 10_000_000));
    fs::create_dir_all(inbox.outside("tree/deep")).unwrap();
    fs::write(inbox.outside("file"), &file).unwrap();
    fs::write(inbox.outside("tree/deep/folded"), &folded).unwrap();
    run(Command::new("mv").arg(inbox.outside("file")).arg(inbox.outside("tree")).arg(inbox.at("")));
    let mut expected = vec![("file", file.as_slice()), ("tree/deep/folded", folded.as_slice())];
    // Between filesystems mv copies, and gives the copy the old times when it is through.
    match tempfile::tempdir_in("/dev/shm") {
        Ok(elsewhere) => {
            let source = elsewhere.path().join("far");
            fs::write(&source, &far).unwrap();
            let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
            fs::File::options().append(true).open(&source).unwrap().set_modified(an_hour_ago).unwrap();
            run(Command::new("mv").arg(&source).arg(inbox.at("far")));
            expected.push(("far", &far));
        }
        Err(error) => eprintln!("skipped: mv between filesystems, because of /dev/shm: {error}"),
    }
    inbox.holds(&expected);
}

#[test]
fn mv_inside_is_processed_under_its_last_name_at_most_once_more() {
    if !has_tools(&["mv"]) {
        return;
    }
    let inbox = Inbox::new("300ms");
    let (one, two) = (noise(1, 10_000), noise(2, 10_000));
    fs::create_dir(inbox.at("folder")).unwrap();
    fs::write(inbox.at("one"), &one).unwrap();
    fs::write(inbox.at("folder/two"), &two).unwrap();
    inbox.holds(&[("one", &one), ("folder/two", &two)]);
    run(Command::new("mv").arg(inbox.at("one")).arg(inbox.at("renamed")));
    run(Command::new("mv").arg(inbox.at("folder")).arg(inbox.at("moved")));
    inbox.holds(&[("one", &one), ("folder/two", &two), ("renamed", &one), ("moved/two", &two)]);
    // Over one that is there: that name has new content.
    run(Command::new("mv").arg("-f").arg(inbox.at("renamed")).arg(inbox.at("moved/two")));
    let all: [(&str, &[u8]); 5] =
        [("one", &one), ("folder/two", &two), ("renamed", &one), ("moved/two", &two), ("moved/two", &one)];
    inbox.holds(&all);
}

/// A folder of files with contents of all sizes, and what they are called there.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let make = |number: u8| {
        let name = format!("tree/{}/file-{number}", number % 5);
        let content = noise(number, usize::from(number) * 4_000);
        fs::create_dir_all(folder.join(&name).parent().unwrap()).unwrap();
        fs::write(folder.join(&name), &content).unwrap();
        (name, content)
    };
    (0..40).map(make).collect()
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect()
}

#[test]
fn tar_x_is_taken_once_and_whole() {
    if !has_tools(&["tar"]) {
        return;
    }
    let inbox = Inbox::new("300ms");
    fs::create_dir(inbox.outside("source")).unwrap();
    let files = tree(&inbox.outside("source"));
    let archive = inbox.outside("archive.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(inbox.outside("source")).arg("tree"));
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(inbox.at("")));
    inbox.holds(&borrowed(&files));
}

#[test]
fn unzip_is_taken_once_and_whole() {
    if !has_tools(&["zip", "unzip"]) {
        return;
    }
    let inbox = Inbox::new("300ms");
    fs::create_dir(inbox.outside("source")).unwrap();
    let files = tree(&inbox.outside("source"));
    let archive = inbox.outside("archive.zip");
    run(Command::new("zip").args(["-qr"]).arg(&archive).arg("tree").current_dir(inbox.outside("source")));
    run(Command::new("unzip").arg("-q").arg(&archive).arg("-d").arg(inbox.at("")));
    inbox.holds(&borrowed(&files));
}

/// Git, with nobody's configuration.
fn git(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs([("HOME", folder), ("GIT_CONFIG_GLOBAL", Path::new("/dev/null"))]).env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "nobody").env(format!("GIT_{who}_EMAIL"), "nobody@localhost");
    }
    run(command.arg("-C").arg(folder).args(arguments));
}

#[test]
fn git_checkout_is_taken_once_for_each_version_and_its_own_files_never() {
    if !has_tools(&["git"]) {
        return;
    }
    let inbox = Inbox::new("500ms");
    let source = inbox.outside("source");
    fs::create_dir(&source).unwrap();
    git(&source, &["init", "-q", "-b", "first"]);
    let first = tree(&source);
    git(&source, &["add", "."]);
    git(&source, &["commit", "-q", "-m", "first"]);
    git(&source, &["checkout", "-q", "-b", "second"]);
    let changed: Vec<(String, Vec<u8>)> =
        first.iter().step_by(4).map(|(name, content)| (name.clone(), content.repeat(2))).collect();
    // The first file is empty, and so is twice that.
    let changed: Vec<_> = changed.into_iter().filter(|(_, content)| !content.is_empty()).collect();
    for (name, content) in &changed {
        fs::write(source.join(name), content).unwrap();
    }
    git(&source, &["commit", "-q", "-a", "-m", "second"]);

    git(
        &inbox.outside(""),
        &["clone", "-q", "-b", "first", source.to_str().unwrap(), inbox.at("clone").to_str().unwrap()],
    );
    let below = |files: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
        files.iter().map(|(name, content)| (format!("clone/{name}"), content.clone())).collect()
    };
    let (first, changed) = (below(&first), below(&changed));
    inbox.holds(&borrowed(&first));
    git(&inbox.at("clone"), &["checkout", "-q", "second"]);
    let both: Vec<_> = first.into_iter().chain(changed).collect();
    inbox.holds(&borrowed(&both));
}
