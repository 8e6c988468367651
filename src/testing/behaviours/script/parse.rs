//! A script's text, read.

use super::{Line, Script, Step};
use crate::units::{duration, size};
use std::fmt;
use std::str::FromStr;

/// What is wrong with a script, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ScriptError {}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Script, ScriptError> {
        let mut steps: Vec<Line> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let at = |what| ScriptError { line: number, what };
            if let Some(step) = step(line).map_err(at)? {
                follows(&steps, &step).map_err(at)?;
                steps.push(Line { number, step });
            }
        }
        if steps.is_empty() {
            let what = "the script has no steps; to close at once, write close".to_string();
            return Err(ScriptError { line: 1, what });
        }
        Ok(Script { steps })
    }
}

/// The step of a line, if it has one.
fn step(line: &str) -> Result<Option<Step>, String> {
    let line = line.trim();
    if nothing(line) {
        return Ok(None);
    }
    let (word, rest) = word(line);
    let (step, rest) = match word {
        "expect" => bytes(word, rest).map(|(bytes, rest)| (Step::Expect(bytes), rest))?,
        "send" => bytes(word, rest).map(|(bytes, rest)| (Step::Send(bytes), rest))?,
        "skip" => {
            let (count, rest) = self::word(rest);
            (Step::Skip(size(count).map_err(|error| format!("skip: {error}"))?), rest)
        }
        "wait" => {
            let (time, rest) = self::word(rest);
            (Step::Wait(duration(time).map_err(|error| format!("wait: {error}"))?), rest)
        }
        "fin" => (Step::Fin, rest),
        "drain" => (Step::Drain, rest),
        "close" => (Step::Close, rest),
        "reset" => (Step::Reset, rest),
        _ => {
            return Err(format!(
                "unknown step {word:?}; the steps are expect, skip, send, wait, fin, drain, close and reset"
            ));
        }
    };
    let rest = rest.trim();
    match nothing(rest) {
        true => Ok(Some(step)),
        false => Err(format!("{rest:?} is too much after {word}; write one step a line")),
    }
}

/// What is left of a line means nothing.
fn nothing(text: &str) -> bool {
    text.is_empty() || text.starts_with('#')
}

/// The first word and the rest.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(|c: char| c.is_whitespace() || c == '#').unwrap_or(text.len()))
}

/// The bytes between the first quotes, and what comes after them.
fn bytes<'a>(word: &str, text: &'a str) -> Result<(Vec<u8>, &'a str), String> {
    let text = text.trim_start();
    let Some(mut text) = text.strip_prefix('"') else {
        return Err(format!("{word} has no text in quotes; write {word} \"PING\\r\\n\""));
    };
    let mut bytes = Vec::new();
    loop {
        let mut letters = text.chars();
        match letters.next() {
            None => return Err("the text has no end; close it with a \"".into()),
            Some('"') if bytes.is_empty() => {
                return Err(format!("the text is empty; {word} one byte or more"));
            }
            Some('"') => return Ok((bytes, letters.as_str())),
            Some('\\') => {
                let (byte, rest) = escaped(letters.as_str())?;
                bytes.push(byte);
                text = rest;
            }
            Some(letter) => {
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                text = letters.as_str();
            }
        }
    }
}

/// The byte that follows a backslash, and the rest.
fn escaped(text: &str) -> Result<(u8, &str), String> {
    let mut letters = text.chars();
    let letter = letters.next();
    let byte = match letter {
        Some('r') => b'\r',
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('"') => b'"',
        // What shows bytes in this crate writes it so.
        Some('\'') => b'\'',
        Some('x') => {
            let digits: String = letters.by_ref().take(2).collect();
            let valid = digits.len() == 2 && digits.chars().all(|c| c.is_ascii_hexdigit());
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if valid => byte,
                _ => return Err("\\x needs two hexadecimal digits; write \\x0a".into()),
            }
        }
        other => {
            let other = other.map(String::from).unwrap_or_default();
            return Err(format!(
                "unknown escape \\{other}; write \\r, \\n, \\t, \\0, \\\\, \\\" or \\x0a"
            ));
        }
    };
    Ok((byte, letters.as_str()))
}

/// Whether a step still makes sense after the others.
fn follows(steps: &[Line], step: &Step) -> Result<(), String> {
    let before = |wanted: &Step| steps.iter().find(|line| line.step == *wanted);
    let wrong = |what: &str, line: &Line| Err(format!("{what} (line {})", line.number));
    if let Some(end) = before(&Step::Close).or_else(|| before(&Step::Reset)) {
        return wrong("the connection has ended before; remove this step or the end", end);
    }
    match step {
        Step::Send(_) | Step::Fin => match before(&Step::Fin) {
            Some(fin) => wrong("the sending has ended before; move fin behind the last send", fin),
            None => Ok(()),
        },
        Step::Expect(_) | Step::Skip(_) | Step::Drain => match before(&Step::Drain) {
            Some(drain) => wrong("all has been read before; move drain to the end", drain),
            None => Ok(()),
        },
        Step::Wait(_) | Step::Close | Step::Reset => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn forms() {
        let check = |text: &str, expected: &[(usize, Step)]| {
            let lines = expected.iter().cloned().map(|(number, step)| Line { number, step });
            assert_eq!(text.parse(), Ok(Script { steps: lines.collect() }), "{text}");
        };
        check("close", &[(1, Step::Close)]);
        check(
            "# a mail server\r\n\r\n  send \"220 \\\"x\\\" # ready\\r\\n\"# first\r\n\twait 5ms # then\r\nreset#!",
            &[
                (3, Step::Send(b"220 \"x\" # ready\r\n".to_vec())),
                (4, Step::Wait(Duration::from_millis(5))),
                (5, Step::Reset),
            ],
        );
        check(r#"expect "\t\0\\\x00\xFf""#, &[(1, Step::Expect(b"\t\0\\\0\xff".to_vec()))]);
        check("expect \"ä\"", &[(1, Step::Expect("ä".as_bytes().to_vec()))]);
        check("skip 4k\nfin\ndrain", &[(1, Step::Skip(4096)), (2, Step::Fin), (3, Step::Drain)]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_the_right_form() {
        let check = |text: &str, line: usize, part: &str| {
            let error = text.parse::<Script>().expect_err(text);
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.what.contains(part), "{text}: {error}");
        };
        check("", 1, "has no steps; to close at once, write close");
        check("# nothing\n\n", 1, "has no steps");
        check("fin\nsnd \"x\"", 2, "unknown step \"snd\"; the steps are expect, skip, send");
        check("send", 1, "no text in quotes; write send \"PING");
        check("send PING", 1, "no text in quotes");
        check("send # \"x\"", 1, "no text in quotes");
        check("send \"PING", 1, "close it with a \"");
        check("send \"PING\\\"", 1, "close it with a \"");
        check("send \"\"", 1, "the text is empty; send one byte or more");
        check("send \"\\q\"", 1, "unknown escape \\q; write \\r");
        check("send \"\\", 1, "unknown escape \\;");
        check("send \"\\x4\"", 1, "two hexadecimal digits");
        check("send \"\\x+4\"", 1, "two hexadecimal digits");
        check("send \"\\xä4\"", 1, "two hexadecimal digits");
        check("send \"a\" \"b\"", 1, "\"\\\"b\\\"\" is too much after send");
        check("close now", 1, "\"now\" is too much after close");
        check("skip 100", 1, "skip: \"100\" has no unit; write 100b");
        check("skip", 1, "skip: \"\" does not start with a number");
        check("wait 5", 1, "wait: \"5\" has no unit; write 5ms");
        check("close\n\nfin", 3, "remove this step or the end (line 1)");
        check("reset\nclose", 2, "remove this step or the end (line 1)");
        check("fin\nsend \"x\"", 2, "move fin behind the last send (line 1)");
        check("fin\nfin", 2, "move fin behind");
        check("drain\nexpect \"x\"", 2, "move drain to the end (line 1)");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s).*") {
            let _ = text.parse::<Script>();
        }

        #[test]
        fn what_looks_like_a_script_does_not_panic_either(
            text in "((expect|send|skip|wait|fin|drain|close|reset|#)? ?\"?(\\\\x?[0-9a-fä]{0,2}|[a-z\" #]){0,4}\"?\r?\n?){0,6}"
        ) {
            if let Err(error) = text.parse::<Script>() {
                prop_assert!(error.line >= 1 && error.line <= text.lines().count().max(1), "{}", error);
            }
        }

        #[test]
        fn any_bytes_can_be_written(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            let escaped = bytes.escape_ascii().to_string();
            let step = Step::Send(bytes);
            for text in [hex, escaped] {
                let script = Script { steps: vec![Line { number: 1, step: step.clone() }] };
                prop_assert_eq!(format!("send \"{text}\"").parse(), Ok(script));
            }
        }
    }
}
