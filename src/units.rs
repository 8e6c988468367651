//! Durations, sizes and errors as a person writes and reads them: `200ms`, `30s`, `1h`, `64k`, `2m`.
//!
//! A bare number is refused: `--idle-timeout 10` means ten seconds to one reader and ten milliseconds to another.

use std::io;
use std::time::Duration;

/// Reads a duration: a whole number and one of `us`, `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// A sentence that says what is wrong and shows the right form.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(trunkline::units::duration("200ms"), Ok(Duration::from_millis(200)));
/// assert_eq!(
///     trunkline::units::duration("30"),
///     Err("\"30\" has no unit; write 30ms, 30s, 30m or 30h".to_string())
/// );
/// ```
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split(text);
    let number = number(text, digits, "200ms, 30s, 5m or 1h")?;
    let micros = match unit {
        "" => {
            return Err(format!(
                "{text:?} has no unit; write {digits}ms, {digits}s, {digits}m or {digits}h"
            ));
        }
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ if unit.starts_with('.') => {
            return Err(format!("{text:?} is not whole; write 1500ms for one and a half seconds"));
        }
        _ => {
            return Err(format!(
                "{text:?} has an unknown unit {unit:?}; the units are us, ms, s, m, h, d"
            ));
        }
    };
    number
        .checked_mul(micros)
        .map(Duration::from_micros)
        .ok_or_else(|| format!("{text:?} is longer than this program can count"))
}

/// Reads a size in bytes: a whole number and one of `b`, `k`, `m`, `g` (powers of 1024).
///
/// # Errors
/// A sentence that says what is wrong and shows the right form.
///
/// ```
/// assert_eq!(trunkline::units::size("64k"), Ok(65536));
/// assert!(trunkline::units::size("64").is_err());
/// ```
pub fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = split(text);
    let number = number(text, digits, "512b, 64k, 2m or 1g")?;
    let bytes: u64 = match unit.to_ascii_lowercase().as_str() {
        "" => {
            return Err(format!("{text:?} has no unit; write {digits}b, {digits}k or {digits}m"));
        }
        "b" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => {
            return Err(format!("{text:?} has an unknown unit {unit:?}; the units are b, k, m, g"));
        }
    };
    number
        .checked_mul(bytes)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| format!("{text:?} is larger than this machine can address"))
}

/// Writes a duration the way [`duration`] reads it, in the largest unit that loses nothing.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(trunkline::units::show_duration(Duration::from_secs(3600)), "1h");
/// assert_eq!(trunkline::units::show_duration(Duration::from_millis(1500)), "1500ms");
/// ```
pub fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units = [
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
        (1_000, "ms"),
    ];
    match units.iter().find(|(unit, _)| micros.is_multiple_of(*unit)) {
        Some((_, _)) if micros == 0 => "0s".to_string(),
        Some((unit, name)) => format!("{}{name}", micros / unit),
        None => format!("{micros}us"),
    }
}

/// Writes a number of bytes the way [`size`] reads it, in the largest unit that loses nothing.
///
/// ```
/// assert_eq!(trunkline::units::show_size(65536), "64k");
/// assert_eq!(trunkline::units::show_size(1000), "1000b");
/// ```
pub fn show_size(bytes: usize) -> String {
    match bytes {
        0 => "0b".to_string(),
        b if b.is_multiple_of(1 << 30) => format!("{}g", b >> 30),
        b if b.is_multiple_of(1 << 20) => format!("{}m", b >> 20),
        b if b.is_multiple_of(1 << 10) => format!("{}k", b >> 10),
        b => format!("{b}b"),
    }
}

/// A system error in words, without the "(os error 98)" that tells a reader nothing.
///
/// ```
/// let error = std::io::Error::from_raw_os_error(2);
/// assert_eq!(trunkline::units::show_error(&error), "no such file or directory");
/// ```
pub fn show_error(error: &io::Error) -> String {
    let text = error.to_string();
    let words = match text.find(" (os error") {
        Some(end) => &text[..end],
        None => &text,
    };
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "unknown error".to_string(),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn number(text: &str, digits: &str, right: &str) -> Result<u64, String> {
    if digits.is_empty() {
        return Err(format!("{text:?} does not start with a number; write {right}"));
    }
    digits.parse().map_err(|_| format!("{text:?} is too large a number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Result<u64, &str>| match expected {
            Ok(micros) => assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}"),
            Err(part) => {
                let error = duration(text).expect_err(text);
                assert!(error.contains(part), "{text}: {error}");
            }
        };
        check("200ms", Ok(200_000));
        check("0s", Ok(0));
        check("7us", Ok(7));
        check("5m", Ok(300_000_000));
        check("2d", Ok(172_800_000_000));
        check("", Err("does not start with a number"));
        check("ms", Err("does not start with a number"));
        check("-1s", Err("does not start with a number"));
        check("10", Err("write 10ms, 10s, 10m or 10h"));
        check("1.5s", Err("is not whole"));
        check("10 s", Err("unknown unit \" s\""));
        check("99999999999999999999s", Err("too large a number"));
        check("18446744073709551615d", Err("longer than this program"));
    }

    #[test]
    fn sizes() {
        assert_eq!(size("2M"), Ok(2 << 20));
        assert_eq!(size("1b"), Ok(1));
        assert!(size("10").expect_err("bare").contains("10k"));
        assert!(size("5x").expect_err("unit").contains("unknown unit"));
        assert!(size("18446744073709551615g").expect_err("huge").contains("larger"));
    }

    #[test]
    fn a_system_error_reads_as_a_sentence() {
        let check = |error: io::Error, expected: &str| assert_eq!(show_error(&error), expected);
        check(io::Error::from_raw_os_error(98), "address already in use");
        check(io::Error::other("name not known"), "name not known");
        check(io::Error::other(""), "unknown error");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(micros in 0u64..u64::MAX / 2, bytes in 0usize..usize::MAX / 2) {
            let time = Duration::from_micros(micros);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = duration(&text);
            let _ = size(&text);
        }
    }
}
