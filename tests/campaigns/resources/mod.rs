//! Resources: handles, watches, processes, memory and file sizes that run out, processors that misbehave, crowds of
//! files, and names of any bytes.
//!
//! Whatever runs out, no file is lost, nothing is failed for good, and when there is enough again the work goes on
//! without a person.

mod crowd;
mod limits;
mod names;
mod rude;
