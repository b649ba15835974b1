//! The GPU path on a real device; software Vulkan will do.
//!
//! Without an adapter every test here shows as ignored, never as passed, which is why the harness is not the standard one.
//! `SWEEPFIT_ADAPTER` picks an adapter by a part of its name; else the best one is taken, software included.

#[path = "gpu/commands.rs"]
mod commands;
#[path = "gpu/faults.rs"]
mod faults;
#[path = "gpu/nist.rs"]
mod nist;
#[path = "gpu/proposals.rs"]
mod proposals;
#[path = "support/recovery.rs"]
mod recovery;
#[path = "gpu/recovery.rs"]
mod recovery_of_laws;
#[path = "gpu/replicates.rs"]
mod replicates;
#[path = "gpu/selftest.rs"]
mod selftest;
#[path = "support/mod.rs"]
mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use std::sync::Arc;
use sweepfit::fit::gpu::Gpu;

type Test = fn(&Gpu) -> Result<(), Failed>;

fn main() {
    let arguments = Arguments::from_args();
    let named = std::env::var("SWEEPFIT_ADAPTER").ok();
    let wanted = named.or_else(|| Gpu::adapters().first().map(|adapter| adapter.name.clone()));
    let gpu = wanted.map(|name| Arc::new(Gpu::open(Some(&name)).expect("an adapter that is listed opens")));
    match &gpu {
        Some(gpu) => eprintln!("adapter: {}", gpu.adapter()),
        None => eprintln!("no adapter was found: the tests of the GPU are ignored"),
    }
    let mut tests: Vec<(&str, Test)> = vec![
        (
            "device_ideal_f32_and_f64_agree_on_every_operator_and_law",
            selftest::device_ideal_f32_and_f64_agree_on_every_operator_and_law,
        ),
        ("sabotaged_operators_are_found_out_by_name", selftest::sabotaged_operators_are_found_out_by_name),
        ("a_law_without_a_term_is_found_out_by_name", selftest::a_law_without_a_term_is_found_out_by_name),
        (
            "a_kernel_that_reads_shifted_responses_is_found_out",
            selftest::a_kernel_that_reads_shifted_responses_is_found_out,
        ),
        ("the_command_tells_its_verdict", selftest::the_command_tells_its_verdict),
        ("noiseless_curves_are_proposed_their_truth", proposals::noiseless_curves_are_proposed_their_truth),
        ("noisy_curves_are_proposed_their_optimum", proposals::noisy_curves_are_proposed_their_optimum),
        ("robust_fits_are_proposed_their_optimum", proposals::robust_fits_are_proposed_their_optimum),
        ("judged_answers_are_those_of_the_cpu", proposals::judged_answers_are_those_of_the_cpu),
        ("every_law_recovers_its_own_parameters", recovery_of_laws::every_law_recovers_its_own_parameters),
        (
            "kaplan_recovers_its_parameters_from_their_whole_box",
            recovery_of_laws::kaplan_recovers_its_parameters_from_their_whole_box,
        ),
        ("settled_curves_get_no_proposal", proposals::settled_curves_get_no_proposal),
        ("curves_do_not_see_their_neighbours", proposals::curves_do_not_see_their_neighbours),
        ("a_shifted_proposal_is_found_out", proposals::a_shifted_proposal_is_found_out),
        ("replicates_are_drawn_as_on_the_host", replicates::replicates_are_drawn_as_on_the_host),
        ("a_generator_of_other_numbers_is_found_out", replicates::a_generator_of_other_numbers_is_found_out),
        ("intervals_are_those_of_the_cpu", replicates::intervals_are_those_of_the_cpu),
        ("a_ragged_sweep_is_fitted_as_on_the_cpu", commands::a_ragged_sweep_is_fitted_as_on_the_cpu),
        ("noisy_curves_end_as_low_as_on_the_cpu", commands::noisy_curves_end_as_low_as_on_the_cpu),
        (
            "a_bench_measures_both_devices_and_verifies_their_answers",
            commands::a_bench_measures_both_devices_and_verifies_their_answers,
        ),
        ("a_shifted_parameter_is_found_out", commands::a_shifted_parameter_is_found_out),
        (
            "a_device_lost_at_any_stage_is_made_up_for_by_the_cpu",
            faults::a_device_lost_at_any_stage_is_made_up_for_by_the_cpu,
        ),
        (
            "a_device_that_may_not_be_replaced_leaves_a_ledger",
            faults::a_device_that_may_not_be_replaced_leaves_a_ledger,
        ),
        ("certified_values_are_reached_from_both_starts", nist::certified_values_are_reached_from_both_starts),
        (
            "an_adapter_of_another_name_is_refused_with_the_list",
            commands::an_adapter_of_another_name_is_refused_with_the_list,
        ),
    ];
    let published: [(&str, Test); 3] = [
        ("porian_is_fitted_as_on_the_cpu", commands::porian_is_fitted_as_on_the_cpu),
        ("chinchilla_is_fitted_as_on_the_cpu", commands::chinchilla_is_fitted_as_on_the_cpu),
        ("learning_curves_end_as_low_as_on_the_cpu", commands::learning_curves_end_as_low_as_on_the_cpu),
    ];
    tests.extend(published);
    let absent = |name: &str| published.iter().any(|(needs, _)| *needs == name) && !cfg!(shared_data);
    let trials = tests
        .into_iter()
        .map(|(name, test)| match gpu.clone().filter(|_| !absent(name)) {
            Some(gpu) => Trial::test(name, move || test(&gpu)),
            None => Trial::test(name, || Ok(())).with_ignored_flag(true),
        })
        .collect();
    // One device: its tests take turns.
    let arguments = Arguments { test_threads: Some(1), ..arguments };
    libtest_mimic::run(&arguments, trials).exit();
}
