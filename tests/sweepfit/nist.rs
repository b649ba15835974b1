//! NIST's certified answers, from NIST's starting values and from none.

use crate::support::nist::{Agreement, From, problems, report};

/// Problems whose certified minimum the search finds without starting values.
const FOUND_WITHOUT_START: usize = 24;

#[test]
fn certified_values_are_reached_from_both_starts() {
    let (table, failures, reached) = report(&[("cpu", &["--backend", "cpu"])]);
    println!(
        "digits of parameters, residual sum of squares, standard errors\n{table}\nwithout start: {reached:?} of 27"
    );
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(reached[0] >= FOUND_WITHOUT_START, "{reached:?} of 27 without start");
}

#[test]
fn an_answer_that_is_off_in_the_eighth_digit_is_found_out() {
    let problem = problems().into_iter().find(|problem| problem.name == "Misra1a").expect("a problem of that name");
    let found = problem.fit(From::First, &["--backend", "cpu"]);
    assert!(problem.passes(&found), "{found:?}");
    for (k, digits) in [(0, 7.9), (1, 8.9), (2, 5.9), (0, f64::NEG_INFINITY)] {
        let mut off: Agreement = found.clone();
        off.digits[k] = digits;
        assert!(!problem.passes(&off), "{off:?}");
    }
}
