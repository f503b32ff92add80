//! Fuzzing: whatever stands in a file, a list, an answer or a name, the program understands it or says what is wrong.
//!
//! 1. `properties` says what holds of each surface for *any* input: a function of the input that panics where it does
//!    not. They go by the library's public interface and take bytes or texts, so that a target of libFuzzer is a line.
//! 2. Here, proptest makes inputs from `inputs` (what people write, bent) and makes a failing one short. A quick form
//!    tries a fixed number from a printed seed; the long one twenty times as many.
//! 3. What only the whole program has (arguments, a list on disk, the socket) is tried through the binary, in `program`.

mod inputs;
mod program;
mod properties;
mod replies;

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::seed::Seed;
use crate::support::long;

/// How much longer the long form is.
const LONG: u32 = 20;
/// How long a failing input is made shorter at most, in milliseconds.
const SHRINK_MS: u32 = 60_000;

/// Tries a property on so many inputs, many more in the long form.
fn hold<S: Strategy>(surface: &'static str, cases: u32, inputs: &S, property: impl Fn(S::Value))
where
    S::Value: Clone + Debug,
{
    let seed = Seed::of(surface);
    let cases = if long() { cases * LONG } else { cases };
    let config = Config { cases, failure_persistence: None, max_shrink_time: SHRINK_MS, ..Config::default() };
    let mut random = seed.random();
    let bytes: [u8; 32] = std::array::from_fn(|_| random.u8(..));
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    match runner.run(inputs, |input| {
        property(input);
        Ok(())
    }) {
        Ok(()) => seed.report(format!("{cases} inputs")),
        Err(TestError::Fail(why, input)) => panic!("{surface}: {why}\nthe shortest input found: {input:?}"),
        Err(TestError::Abort(why)) => panic!("{surface}: no input could be drawn: {why}"),
    }
}

#[test]
fn a_configuration_is_understood_or_refused_with_the_place() {
    hold("fuzz::a_configuration", 600, &inputs::configuration(), |(text, variables)| {
        properties::configuration(&text, &variables);
    });
}

#[test]
fn a_line_of_a_list_is_understood_or_said_to_be_wrong() {
    hold("fuzz::a_line", 6_000, &inputs::line(), |line| properties::line(&line));
}

#[test]
fn a_filter_takes_what_its_globs_say() {
    hold("fuzz::a_filter", 3_000, &inputs::globs(), |(globs, path)| properties::globs(&globs, &path));
}

#[test]
fn a_job_is_done_only_if_its_own_last_answer_says_so() {
    hold("fuzz::a_job", 2_000, &inputs::answers(), |(said, cuts)| properties::answers(&said, &cuts));
}

#[test]
fn a_template_holds_each_value_once_as_it_is() {
    hold("fuzz::a_template", 3_000, &inputs::template(), |(template, file)| properties::template(&template, &file));
}

#[test]
fn a_context_is_written_in_one_way_and_no_two_in_the_same() {
    hold("fuzz::a_context", 4_000, &inputs::contexts(), |(one, other)| properties::contexts(&one, &other));
}

#[test]
fn different_work_has_different_keys() {
    hold("fuzz::different_work", 3_000, &(inputs::work(), inputs::work()), |(one, other)| {
        properties::keys(&one, &other);
    });
}

#[test]
fn a_wait_stays_within_its_bounds() {
    hold("fuzz::a_wait", 5_000, &inputs::policy(), |policy| properties::waits(&policy));
}
