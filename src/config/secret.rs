//! What of a configuration is shown to nobody: one rule for all that shows values.

use super::settings;
use super::value::{Value, truthy};

/// What stands for a secret.
pub(super) const HIDDEN: &str = "********";

/// What is shown in the place of a value; `None` when it is shown as it is.
///
/// A key keeps a secret wherever it stands and however its letters are cased: who mistook its place or its
/// spelling did not mean to show it.
pub(super) fn in_place_of(key: &str, value: &Value) -> Option<String> {
    if truthy(value) && settings::keeps_secret(key) {
        return Some(HIDDEN.into());
    }
    match value {
        Value::String(text) => without_credentials(text),
        _ => None,
    }
}

/// A text without the user and password of any address in it; `None` when there are none.
pub(super) fn without_credentials(text: &str) -> Option<String> {
    let mut shown = String::new();
    let mut rest = text;
    let mut any = false;
    while let Some((scheme, behind)) = rest.split_once("://") {
        shown.push_str(scheme);
        shown.push_str("://");
        let end = behind.find(['/', '?', '#']).unwrap_or(behind.len());
        rest = behind;
        if let Some((credentials, _)) = behind[..end].rsplit_once('@')
            && !credentials.is_empty()
        {
            shown.push_str(HIDDEN);
            rest = &behind[credentials.len()..];
            any = true;
        }
    }
    shown.push_str(rest);
    any.then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_host_of_an_address_is_hidden() {
        for (text, expected) in [
            ("http://me:hush@host:1/p@q", "http://********@host:1/p@q"),
            ("http://me:hu@sh@host", "http://********@host"),
            ("HTTPS://hush@host?a=b", "HTTPS://********@host?a=b"),
            (
                "see http://hush@a/ and x://b:hush@c",
                "see http://********@a/ and x://********@c",
            ),
        ] {
            assert_eq!(without_credentials(text).as_deref(), Some(expected));
            let again = without_credentials(expected);
            assert_eq!(
                again.as_deref(),
                Some(expected),
                "hidden once is hidden for ever"
            );
        }
        for text in [
            "",
            "https://host/a@b",
            "me@host",
            "http://@host",
            "://",
            "a://b://c",
        ] {
            assert_eq!(without_credentials(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_keeps_its_secret_anywhere() {
        let text = Value::String("hush".into());
        for key in [
            "token",
            "Token",
            "librato.token",
            "librato.TOKEN",
            "a.b.token",
        ] {
            assert_eq!(in_place_of(key, &text).as_deref(), Some(HIDDEN), "{key}");
            assert_eq!(
                in_place_of(key, &Value::String(String::new())),
                None,
                "{key}"
            );
        }
        for key in ["email", "tokens", "token.of", ""] {
            assert_eq!(in_place_of(key, &text), None, "{key}");
        }
        let list = Value::List(Vec::new());
        assert_eq!(in_place_of("token", &list).as_deref(), Some(HIDDEN));
    }
}
