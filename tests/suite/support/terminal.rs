//! A command on a terminal, which `script` makes for it.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::wait::wait_until;

/// A command that runs on a terminal of its own, and what it has put there.
pub struct Terminal {
    script: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs the command. It asks for no colours, so that each control character on the terminal is somebody else's.
    pub fn run(command: &Command) -> Self {
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"));
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<String> = words.map(quoted).collect();
        let mut script = Command::new("script");
        script.arg("-qec").arg(line.join(" ")).arg("/dev/null").env_clear();
        script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.env("SHELL", "/bin/sh").env("NO_COLOR", "1").current_dir(command.get_current_dir().unwrap());
        // An end of what is typed would be echoed.
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = script.stdout.take().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let screen = Arc::clone(&seen);
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut chunk) {
                screen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..length]);
            }
        });
        Self { script, seen }
    }

    /// What was put there so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.seen.lock().unwrap().clone()).expect("a terminal gets UTF-8")
    }

    /// Waits until the terminal shows exactly this.
    #[track_caller]
    pub fn shows(&self, expected: &str) {
        wait_until(&format!("the terminal shows {expected:?}"), || {
            // Half a character may be on its way.
            *self.seen.lock().unwrap() == expected.as_bytes()
        });
    }

    /// Everything that was put there, once the command has ended well.
    #[track_caller]
    pub fn end(mut self) -> String {
        wait_until("the command ends", || self.script.try_wait().unwrap().is_some());
        // The reader has the other one until nothing more comes.
        wait_until("its last words are there", || Arc::strong_count(&self.seen) == 1);
        assert!(self.script.wait().unwrap().success(), "{:?}", self.text());
        self.text()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
