//! What holds for any input, surface by surface. It uses nothing but the library, and knows nothing of how inputs are made.

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
pub use template::{task, template};
pub use waits::{Policy, waits};
