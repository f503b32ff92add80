//! Each crash point is built on disk as the crash would leave it, and the call that follows has to finish.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

/// A watched folder with one processed file, and a folder for it to go to.
struct Scene {
    inbox: TempDir,
    target: TempDir,
    disposition: Disposition,
}

impl Scene {
    fn new(disposal: impl FnOnce(&Path) -> Disposal) -> Self {
        Self::between(tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), disposal)
    }

    fn between(inbox: TempDir, target: TempDir, disposal: impl FnOnce(&Path) -> Disposal) -> Self {
        let path = inbox.path().join("sub/a.pdf");
        fs::create_dir(inbox.path().join("sub")).unwrap();
        fs::write(&path, "processed").unwrap();
        let identity = FileIdentity::of(&fs::metadata(&path).unwrap());
        let disposal = disposal(target.path());
        let disposition = plan(JobId(7), Fence(3), &path, Path::new("sub/a.pdf"), &disposal, identity).unwrap();
        Self { inbox, target, disposition }
    }

    fn moving() -> Self {
        Self::new(|target| Disposal::Move(target.join("done")))
    }

    fn deleting() -> Self {
        Self::new(|_| Disposal::Delete)
    }

    /// `None` on a machine where both folders are on one filesystem.
    fn across() -> Option<Self> {
        let inbox = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir_in("/dev/shm").ok()?;
        let dev = |folder: &TempDir| fs::metadata(folder.path()).unwrap().dev();
        (dev(&inbox) != dev(&target))
            .then(|| Self::between(inbox, target, |target| Disposal::Move(target.to_path_buf())))
    }

    fn path(&self) -> &Path {
        &self.disposition.path
    }

    fn private(&self) -> &Path {
        &self.disposition.private
    }

    fn target(&self) -> PathBuf {
        self.disposition.target.clone().unwrap()
    }

    fn carry_out(&self) -> Carried {
        let carried = carry_out(&self.disposition).unwrap();
        assert!(!self.private().exists(), "nothing is left under the private name");
        if self.disposition.target.is_some() {
            assert!(!part_of(&self.disposition, &self.target()).exists(), "no half copy is left");
        }
        carried
    }

    fn assert_moved_once(&self) {
        assert_eq!(read(&self.target()), "processed");
        assert_eq!(fs::read_dir(parent(&self.target())).unwrap().count(), 1, "there is one copy");
    }
}

/// From the root of the watch, two folders above.
fn carry_out(disposition: &Disposition) -> Result<Carried, JobError> {
    super::carry_out(disposition, &way(disposition), None)
}

fn give_back(disposition: &Disposition) -> io::Result<Option<FileIdentity>> {
    super::give_back(disposition, &way(disposition))
}

fn way(disposition: &Disposition) -> Way {
    let root = disposition.path.ancestors().nth(2).unwrap();
    Way::watched(&disposition.path, disposition.path.strip_prefix(root).unwrap(), true)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn moved(scene: &Scene) -> Carried {
    Carried::Moved { to: scene.target() }
}

#[test]
fn plans_name_private_and_target() {
    let scene = Scene::moving();
    assert_eq!(scene.private(), scene.inbox.path().join("sub/.ingestd-7-3"));
    assert_eq!(scene.target(), scene.target.path().join("done/sub/a.pdf"));
    let plan = |relative: &str, disposal: &Disposal| {
        let identity = FileIdentity::default();
        plan(JobId(1), Fence(1), Path::new("/in/a"), Path::new(relative), disposal, identity)
    };
    assert_eq!(plan("a", &Disposal::Keep), None);
    assert_eq!(plan("a", &Disposal::Delete).unwrap().target, None);
    for outside in ["/in/a", "../a", "x/../../a"] {
        let target = plan(outside, &Disposal::Move("/done".into())).unwrap().target.unwrap();
        assert_eq!(target, Path::new("/done/a"), "{outside}");
    }
}

#[test]
fn a_delete_may_be_interrupted_anywhere() {
    let scene = Scene::deleting();
    assert_eq!(scene.carry_out(), Carried::Gone);
    assert!(!scene.path().exists());
    assert_eq!(scene.carry_out(), Carried::Gone, "after the end");

    let scene = Scene::deleting();
    fs::rename(scene.path(), scene.private()).unwrap();
    assert_eq!(scene.carry_out(), Carried::Gone, "after the first rename");

    let scene = Scene::deleting();
    fs::rename(scene.path(), scene.private()).unwrap();
    fs::write(scene.path(), "newer").unwrap();
    assert_eq!(scene.carry_out(), Carried::Gone, "after the first rename, with a new file");
    assert_eq!(read(scene.path()), "newer");
}

#[test]
fn a_move_may_be_interrupted_anywhere() {
    let scene = Scene::moving();
    assert_eq!(scene.carry_out(), moved(&scene));
    assert!(!scene.path().exists());
    scene.assert_moved_once();
    assert_eq!(scene.carry_out(), moved(&scene), "after the end");
    scene.assert_moved_once();

    let scene = Scene::moving();
    fs::rename(scene.path(), scene.private()).unwrap();
    fs::write(scene.path(), "newer").unwrap();
    assert_eq!(scene.carry_out(), moved(&scene), "after the first rename, with a new file");
    scene.assert_moved_once();
    assert_eq!(read(scene.path()), "newer");

    // Where renames are a link and an unlink: between the two.
    let scene = Scene::moving();
    fs::rename(scene.path(), scene.private()).unwrap();
    fs::create_dir_all(parent(&scene.target())).unwrap();
    fs::hard_link(scene.private(), scene.target()).unwrap();
    assert_eq!(scene.carry_out(), moved(&scene));
    scene.assert_moved_once();

    // All is done but the settling, and a new file came.
    let scene = Scene::moving();
    scene.carry_out();
    fs::write(scene.path(), "newer").unwrap();
    assert_eq!(scene.carry_out(), Carried::AnotherFile);
    assert_eq!(read(scene.path()), "newer");
    scene.assert_moved_once();
}

#[test]
fn a_move_across_filesystems_may_be_interrupted_anywhere() {
    let Some(scene) = Scene::across() else { return };
    fs::set_permissions(scene.path(), PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(scene.carry_out(), moved(&scene));
    scene.assert_moved_once();
    let meta = fs::metadata(scene.target()).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o640);
    assert_eq!(FileIdentity::of(&meta).mtime_ns, scene.disposition.identity.mtime_ns);
    assert_eq!(scene.carry_out(), moved(&scene), "after the end");
    scene.assert_moved_once();

    // In the middle of the copy, and before its rename.
    for half in ["proc", "processed"] {
        let scene = Scene::across().unwrap();
        fs::rename(scene.path(), scene.private()).unwrap();
        fs::create_dir_all(parent(&scene.target())).unwrap();
        fs::write(part_of(&scene.disposition, &scene.target()), half).unwrap();
        assert_eq!(scene.carry_out(), moved(&scene));
        scene.assert_moved_once();
    }

    // After the copy has its name, before the original is removed.
    let scene = Scene::across().unwrap();
    fs::rename(scene.path(), scene.private()).unwrap();
    fs::create_dir_all(parent(&scene.target())).unwrap();
    copy_to(&File::open(scene.private()).unwrap(), &scene.target()).unwrap();
    assert_eq!(scene.carry_out(), moved(&scene));
    scene.assert_moved_once();

    // The original is gone, the half copy is not: somebody removed it.
    let scene = Scene::across().unwrap();
    fs::remove_file(scene.path()).unwrap();
    fs::create_dir_all(parent(&scene.target())).unwrap();
    fs::write(part_of(&scene.disposition, &scene.target()), "proc").unwrap();
    assert_eq!(scene.carry_out(), Carried::Gone);
}

#[test]
fn a_copy_that_took_another_name_is_recognised_too() {
    let Some(scene) = Scene::across() else { return };
    fs::rename(scene.path(), scene.private()).unwrap();
    fs::create_dir_all(parent(&scene.target())).unwrap();
    fs::write(scene.target(), "PROCESSED").unwrap();
    let second = numbered(&scene.target(), 2);
    copy_to(&File::open(scene.private()).unwrap(), &second).unwrap();
    assert_eq!(scene.carry_out(), Carried::Moved { to: second });
    assert_eq!(fs::read_dir(parent(&scene.target())).unwrap().count(), 2);
}

#[test]
fn a_target_is_never_overwritten() {
    for scene in [Some(Scene::moving()), Scene::across()].into_iter().flatten() {
        fs::create_dir_all(parent(&scene.target())).unwrap();
        fs::write(scene.target(), "earlier").unwrap();
        symlink("/no/such/file", numbered(&scene.target(), 2)).unwrap();
        let third = parent(&scene.target()).join("a (3).pdf");
        assert_eq!(scene.carry_out(), Carried::Moved { to: third.clone() });
        assert_eq!((read(&scene.target()), read(&third)), ("earlier".to_owned(), "processed".to_owned()));
    }
}

#[test]
fn another_file_keeps_its_name() {
    for scene in [Scene::moving(), Scene::deleting()] {
        // Replaced before the call.
        let other = scene.path().with_file_name("other");
        fs::write(&other, "newer").unwrap();
        fs::rename(&other, scene.path()).unwrap();
        assert_eq!(scene.carry_out(), Carried::AnotherFile);
        assert_eq!(read(scene.path()), "newer");

        // Replaced just before the rename, and the crash came before the check.
        fs::rename(scene.path(), scene.private()).unwrap();
        assert_eq!(scene.carry_out(), Carried::AnotherFile);
        assert_eq!(read(scene.path()), "newer");

        // The same, and a third one has the name by now: the newest keeps it, and none is lost.
        fs::rename(scene.path(), scene.private()).unwrap();
        fs::write(scene.path(), "newest").unwrap();
        assert_eq!(scene.carry_out(), Carried::AnotherFile);
        assert_eq!(read(scene.path()), "newest");
        assert_eq!(read(&scene.path().with_file_name("a.pdf.ingestd-7-3")), "newer");
    }
}

#[test]
fn content_written_in_place_makes_it_another_file() {
    let scene = Scene::deleting();
    fs::write(scene.path(), "processed, and more").unwrap();
    assert_eq!(scene.carry_out(), Carried::AnotherFile);
    assert_eq!(read(scene.path()), "processed, and more");
}

#[test]
fn a_changed_mode_leaves_it_the_same_file() {
    let scene = Scene::moving();
    fs::set_permissions(scene.path(), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(scene.carry_out(), moved(&scene));
}

#[test]
fn a_target_that_cannot_be_reached_leaves_the_file_where_it_is() {
    let scene = Scene::moving();
    fs::write(scene.target.path().join("done"), "a file where a folder should be").unwrap();
    let error = carry_out(&scene.disposition).unwrap_err();
    assert!(!error.permanent && error.kind == ErrorKind::Disposition, "{error}");
    assert!(error.message.contains("done/sub"), "{error}");
    assert_eq!(read(scene.path()), "processed");
    fs::remove_file(scene.target.path().join("done")).unwrap();
    assert_eq!(scene.carry_out(), moved(&scene));
}

#[test]
fn a_file_whose_job_is_given_up_gets_its_name_back() {
    let scene = Scene::moving();
    let has_its_name =
        || give_back(&scene.disposition).unwrap().unwrap().same_but_for_ctime(&scene.disposition.identity);
    assert!(has_its_name(), "nobody took it");
    fs::rename(scene.path(), scene.private()).unwrap();
    assert!(has_its_name());
    assert_eq!(read(scene.path()), "processed");
    fs::remove_file(scene.path()).unwrap();
    assert_eq!(give_back(&scene.disposition).unwrap(), None, "somebody removed it");
}

#[test]
fn a_file_whose_name_was_taken_goes_beside_it_and_the_other_one_is_told() {
    let scene = Scene::moving();
    fs::rename(scene.path(), scene.private()).unwrap();
    fs::write(scene.path(), "newer").unwrap();
    let newer = FileIdentity::of(&fs::metadata(scene.path()).unwrap());
    assert_eq!(give_back(&scene.disposition).unwrap(), Some(newer));
    assert_eq!(read(scene.path()), "newer");
    assert!(!scene.private().exists());
}

#[test]
fn a_symbolic_link_goes_and_what_is_behind_it_stays() {
    for disposal in [Disposal::Delete, Disposal::Move("done".into())] {
        let folder = tempfile::tempdir().unwrap();
        let (real, path) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "content").unwrap();
        symlink("real", &path).unwrap();
        let disposal = if disposal == Disposal::Delete { disposal } else { Disposal::Move(folder.path().join("done")) };
        let identity = FileIdentity::of(&fs::metadata(&path).unwrap());
        let disposition = plan(JobId(1), Fence(1), &path, Path::new("link"), &disposal, identity).unwrap();
        carry_out(&disposition).unwrap();
        assert!(path.symlink_metadata().is_err());
        assert_eq!(read(&real), "content");
        if let Some(target) = disposition.target {
            assert_eq!(read(&target), "content");
            assert!(!target.is_symlink());
        }
    }
}

#[test]
fn numbered_names_fit_and_cut_no_letter() {
    let long = format!("{}.pdf", "é".repeat(125));
    assert_eq!(long.len(), 254);
    let name = numbered(Path::new(&long), 12);
    let name = name.to_str().unwrap();
    assert!(name.len() <= NAME_MAX && name.ends_with(" (12).pdf"));
    assert_eq!(numbered(Path::new("/x/README"), 2), Path::new("/x/README (2)"));
    assert_eq!(numbered(Path::new("/x/a.tar.gz"), 3), Path::new("/x/a.tar (3).gz"));
}

#[test]
fn a_name_of_full_length_can_be_carried() {
    let scene = Scene::moving();
    let long = format!("{}.pdf", "n".repeat(251));
    let path = scene.path().with_file_name(&long);
    fs::rename(scene.path(), &path).unwrap();
    let target = scene.target().with_file_name(&long);
    fs::create_dir_all(parent(&target)).unwrap();
    fs::write(&target, "earlier").unwrap();
    let disposition = Disposition { path, target: Some(target), ..scene.disposition.clone() };
    let Carried::Moved { to } = carry_out(&disposition).unwrap() else { panic!("moved") };
    assert_eq!(read(&to), "processed");
}

#[test]
fn a_folder_that_became_a_link_keeps_its_files_from_being_taken() {
    for scene in [Scene::moving(), Scene::deleting()] {
        let elsewhere = tempfile::tempdir().unwrap();
        // The very file that was processed, under a name that is another's by now.
        fs::rename(scene.path(), elsewhere.path().join("a.pdf")).unwrap();
        fs::remove_dir(parent(scene.path())).unwrap();
        symlink(elsewhere.path(), parent(scene.path())).unwrap();
        assert_eq!(carry_out(&scene.disposition).unwrap(), Carried::Gone);
        assert_eq!(read(&elsewhere.path().join("a.pdf")), "processed");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_shortage_of_files_is_no_fault_of_the_file() {
    for error in [libc::EMFILE, libc::ENFILE] {
        let error = failed("move", Path::new("/a"))(io::Error::from_raw_os_error(error));
        assert!(!error.permanent && error.kind == ErrorKind::Io, "{error}");
    }
}

/// What somebody else may give a name to while a file is on its way.
fn swaps() -> [fn(&Path); 3] {
    [
        |name| symlink("/etc/passwd", name).unwrap(),
        |name| rustix::fs::mknodat(rustix::fs::CWD, name, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap(),
        |name| fs::write(name, "somebody else's").unwrap(),
    ]
}

#[test]
fn what_somebody_gives_the_private_name_is_not_delivered() {
    for swap in swaps() {
        for scene in [Some(Scene::moving()), Scene::across()].into_iter().flatten() {
            fs::create_dir_all(parent(&scene.target())).unwrap();
            let here = Here::new(&scene.disposition, way(&scene.disposition).to_name().unwrap());
            assert!(matches!(take(&here).unwrap(), Taken::Ours));
            fs::remove_file(scene.private()).unwrap();
            swap(scene.private());
            let error = deliver(&here, None).unwrap_err();
            assert!(!error.permanent && error.kind == ErrorKind::Disposition, "{error}");
            assert_eq!(fs::read_dir(parent(&scene.target())).unwrap().count(), 0, "nothing got to the target");
            assert_eq!(scene.carry_out(), Carried::AnotherFile);
            assert!(scene.path().symlink_metadata().is_ok(), "it has the file's name, and that is all");
        }
    }
}

#[test]
fn what_somebody_gives_the_private_name_in_the_last_moment_is_brought_back() {
    for swap in swaps() {
        let scene = Scene::moving();
        fs::create_dir_all(parent(&scene.target())).unwrap();
        let here = Here::new(&scene.disposition, way(&scene.disposition).to_name().unwrap());
        assert!(matches!(take(&here).unwrap(), Taken::Ours));
        let ours = open_same(scene.private(), &scene.disposition.identity).unwrap();
        fs::remove_file(scene.private()).unwrap();
        swap(scene.private());
        // A link is seen before it is moved.
        move_within(&here, &ours, &scene.target()).unwrap_err();
        assert_eq!(fs::read_dir(parent(&scene.target())).unwrap().count(), 0, "nothing is left in the target");
        assert!(scene.private().symlink_metadata().is_ok());
    }
}
