//! What holds for any input, surface by surface. Also the body of the targets in `fuzz/`, so it uses nothing but the
//! library and what both have.

mod answers;
mod configuration;
mod contexts;
mod globs;
mod keys;
mod line;
mod template;
mod waits;

pub use answers::answers;
pub use configuration::configuration;
pub use contexts::contexts;
pub use globs::globs;
pub use keys::{Work, keys};
pub use line::line;
pub use template::template;
pub use waits::{Policy, waits};
