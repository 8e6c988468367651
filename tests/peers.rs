//! What the bench makes of the figures that it gets. (A bench has no tests of its own.)

#[allow(dead_code, reason = "the bench uses the rest")]
#[path = "../benches/peers/measure.rs"]
mod measure;
#[allow(dead_code, reason = "the bench uses the rest")]
#[path = "servers/program.rs"]
mod program;
#[allow(dead_code, reason = "the bench uses the rest")]
#[path = "../benches/peers/report.rs"]
mod report;

use measure::*;
use report::Row;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn figures_are_found_in_what_programs_print() {
    let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"52631.58\",\"0.5\"\n";
    assert_eq!(redis_benchmark(csv), Some(52631.58));
    assert_eq!(redis_benchmark("Error: Connection reset by peer\n"), None);
    let told = "  43210 requests in 2.00s, 10MB read\nRequests/sec:  21605.00\n";
    assert_eq!(wrk(told), Some((21605.0, 43210.0)));
    assert_eq!(wrk(&format!("{told}  Non-2xx or 3xx responses: 3\n")), None);
    assert_eq!(resident_of("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1234 << 10));
    assert_eq!(on_processor("1500000000 20 3\n"), Some(1_500_000_000));
}

#[test]
fn calls_are_counted_with_and_without_errors() {
    let table = "% time     seconds  usecs/call     calls    errors syscall\n\
        ------ ----------- ----------- --------- --------- ----------------\n \
        60.00    0.060000           3     20000        12 recvfrom\n \
        40.00    0.040000           2     20001           sendto\n\
        ------ ----------- ----------- --------- --------- ----------------\n\
        100.00    0.100000           2     40001        12 total\n";
    let counted = [("recvfrom".to_string(), 20000), ("sendto".to_string(), 20001)];
    assert_eq!(strace(table), counted);
}

#[test]
fn ratios_are_by_the_better_one_of_the_same_round() {
    let mut samples = Samples::default();
    for (name, rounds) in [("us", [6.0, 8.0]), ("a", [3.0, 2.0]), ("b", [2.0, 4.0])] {
        for round in rounds {
            samples.add(name, round, round);
        }
    }
    assert_eq!(samples.rate_by("us", &["a", "b"]), [2.0, 2.0]);
    assert_eq!(samples.cost_by("us", &["a", "b"]), [3.0, 4.0]);
    assert!(samples.rate_by("us", &["a", "not there"]).is_empty());
}

#[test]
fn the_median_is_one_of_the_values() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0]), Some(1.0));
    assert_eq!(median(&[]), None);
    assert_eq!(spread(&[3.0, 1.0, 2.0]), (1.0, 3.0));
}

#[test]
fn a_row_says_whether_its_target_is_met() {
    let row = |target: &str, rounds: &[f64]| Row::new("work", "peer", target, rounds.to_vec());
    assert_eq!(row("<= 0.9", &[0.8, 0.9, 1.2]).is_met(), Some(true));
    assert_eq!(row(">= 1.1", &[0.8, 0.9, 1.2]).is_met(), Some(false));
    assert_eq!(row("", &[1.0]).is_met(), None);
    assert_eq!(row("<= 0.9", &[]).is_met(), None);
    assert!(row("<= 0.9", &[]).line().contains("not measured"));
    let line = "| work | peer | <= 0.9 | 1.00 | 0.50 to 2.00 | **not met** |\n";
    assert_eq!(row("<= 0.9", &[2.0, 0.5, 1.0]).line(), line);
}
