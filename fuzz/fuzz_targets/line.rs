#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trunkline::framing::fuzzed::check("line", data));
