//! Bodies of HTML forms (`application/x-www-form-urlencoded`), and queries, which have the same form.
//!
//! Whatever is sent is pairs of something: what is no valid percent-encoding stands for itself.

use percent_encoding::percent_decode_str;

/// The decoded pairs in their order; a name without `=` has an empty value.
pub fn pairs(body: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    body.trim()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let body = "a=1&data%5Bx%5D=%E4%BD%A0+x&&flag&a=2%3D3&bad=%zz\r\n";
        let found = pairs(body);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [("a", "1"), ("data[x]", "\u{4f60} x"), ("flag", ""), ("a", "2=3"), ("bad", "%zz")];
        assert_eq!(found, expected);
    }
}
