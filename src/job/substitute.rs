//! `${VARIABLE}` and `${VARIABLE:-default}` in the texts of a job file.
//!
//! Substitution happens in values after the file was parsed, so that no variable's content can add keys or steps.

/// What is wrong, and the part of the text where it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub text: String,
    pub message: String,
}

/// The text with every variable's value. A default is taken where the variable is not set or empty, as in a shell;
/// `$${` stands for a plain `${`.
pub(super) fn substitute(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, Mistake> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = &from[2..];
            continue;
        }
        result.push_str(before);
        let mistake = |text: &str, message: String| Mistake { text: text.to_string(), message };
        let Some(end) = from.find('}') else {
            return Err(mistake(from, "${ without its }; a plain ${ is written $${".into()));
        };
        let (name, default) = match from[2..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&from[2..end], None),
        };
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            let message = format!("\"{name}\" is no name of a variable: write ${{NAME}} or ${{NAME:-default}}");
            return Err(mistake(&from[..=end], message));
        }
        match (variable(name), default) {
            (Some(value), None) => result.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => result.push_str(&value),
            (_, Some(default)) => result.push_str(default),
            (None, None) => {
                let message =
                    format!("the variable {name} is not set; set it, or give a default as in ${{{name}:-value}}");
                return Err(mistake(&from[..=end], message));
            }
        }
        rest = &from[end + 1..];
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_defaults_and_escapes() {
        let variable = |name: &str| match name {
            "A" => Some("one".to_string()),
            "EMPTY" => Some(String::new()),
            // Content is never looked at again.
            "TRICK" => Some("${A}".to_string()),
            _ => None,
        };
        for (text, expected) in [
            ("plain $A {A}", "plain $A {A}"),
            ("${A}/${A}", "one/one"),
            ("${B:-two}", "two"),
            ("${A:-two}", "one"),
            ("[${EMPTY}][${EMPTY:-full}][${B:-}]", "[][full][]"),
            ("$${A}", "${A}"),
            ("${TRICK}", "${A}"),
            ("größe ${A} 指", "größe one 指"),
        ] {
            assert_eq!(substitute(text, &variable).as_deref(), Ok(expected), "{text}");
        }
        for (text, place, expected) in [
            ("a ${B} c", "${B}", "the variable B is not set"),
            ("a ${} c", "${}", "no name"),
            ("a ${1A}", "${1A}", "no name"),
            ("a ${A", "${A", "without its }"),
        ] {
            let mistake = substitute(text, &variable).expect_err(text);
            assert_eq!(mistake.text, place);
            assert!(mistake.message.contains(expected), "{mistake:?}");
        }
    }
}
