//! Contents that lines of lists brought along go when nobody can need them any more. What this misses, because a crash
//! came in between, is swept up later.

use std::path::PathBuf;

use super::told::Told;
use crate::intake::ContentFolder;
use crate::job::StateName;
use crate::store::Settled;

/// Removes the contents of jobs that were settled as completed or skipped; none of these is ever tried again. A content
/// in a file of somebody's own stays.
pub(super) async fn remove_used_up(contents: &ContentFolder, ends: &[Told], answers: &[Settled]) {
    let over = |answer: &Settled| matches!(answer, Settled::As(StateName::Completed | StateName::Skipped));
    let used_up = ends.iter().zip(answers).filter(|(_, answer)| over(answer));
    let used_up = used_up.filter_map(|(end, _)| end.work.content.clone()).filter(|content| contents.holds(content));
    let used_up: Vec<PathBuf> = used_up.collect();
    if !used_up.is_empty() {
        let contents = contents.clone();
        // A thread that dies leaves them to the sweep.
        let _ = tokio::task::spawn_blocking(move || contents.remove_all(&used_up)).await;
    }
}
