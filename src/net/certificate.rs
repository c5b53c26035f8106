//! Who a certificate was issued to, read from its DER. Only for certificates that rustls has verified.

/// Who a verified client certificate was issued to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's Common Name; the most specific one if there are several.
    pub common_name: Option<String>,
    /// The whole subject as in RFC 4514, the most specific part first: `CN=meter 7,O=Example`.
    pub subject: String,
}

/// `None` when the bytes are not as X.509 says, or the subject holds a character that cannot stand in a user name (NUL).
pub(super) fn parse(certificate: &[u8]) -> Option<PeerCertificate> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut tbs, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(tbs, VERSION) {
        tbs = rest;
    }
    let (_serial_number, rest) = expect(tbs, INTEGER)?;
    let (_signature_algorithm, rest) = expect(rest, SEQUENCE)?;
    let (_issuer, rest) = expect(rest, SEQUENCE)?;
    let (_validity, rest) = expect(rest, SEQUENCE)?;
    let (subject, _) = expect(rest, SEQUENCE)?;
    parse_name(subject)
}

fn parse_name(mut name: &[u8]) -> Option<PeerCertificate> {
    let mut common_name = None;
    let mut parts = Vec::new();
    while !name.is_empty() {
        let (mut set, rest) = expect(name, SET)?;
        name = rest;
        let mut values = Vec::new();
        while !set.is_empty() {
            let (attribute, rest) = expect(set, SEQUENCE)?;
            set = rest;
            let (oid, value) = expect(attribute, OBJECT_IDENTIFIER)?;
            let (tag, value, _) = element(value)?;
            let text = text(tag, value)?;
            if text.contains('\0') {
                return None;
            }
            values.push(format!("{}={}", attribute_name(oid), escape(&text)));
            if oid == COMMON_NAME {
                common_name = Some(text);
            }
        }
        parts.push(values.join("+"));
    }
    parts.reverse();
    Some(PeerCertificate {
        common_name,
        subject: parts.join(","),
    })
}

fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING | NUMERIC_STRING => {
            String::from_utf8(value.to_vec()).ok()
        }
        T61_STRING => Some(value.iter().copied().map(char::from).collect()),
        BMP_STRING => {
            let units = value
                .chunks_exact(2)
                .map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

fn attribute_name(oid: &[u8]) -> String {
    let name = match oid {
        COMMON_NAME => "CN",
        [0x55, 0x04, 0x04] => "SN",
        [0x55, 0x04, 0x05] => "serialNumber",
        [0x55, 0x04, 0x06] => "C",
        [0x55, 0x04, 0x07] => "L",
        [0x55, 0x04, 0x08] => "ST",
        [0x55, 0x04, 0x09] => "street",
        [0x55, 0x04, 0x0a] => "O",
        [0x55, 0x04, 0x0b] => "OU",
        [0x55, 0x04, 0x0c] => "title",
        [0x55, 0x04, 0x2a] => "GN",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01] => "emailAddress",
        _ => return dotted(oid),
    };
    name.to_owned()
}

fn dotted(oid: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first.to_string());
                number -= first * 40;
            }
            numbers.push(number.to_string());
            number = 0;
        }
    }
    numbers.join(".")
}

/// RFC 4514 §2.4.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (index, character) in text.chars().enumerate() {
        let at_edge =
            (index == 0 && matches!(character, ' ' | '#')) || (index == last && character == ' ');
        if at_edge || matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// The content of the first element, which must have this tag, and what follows the element.
fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and what follows. Lengths in the long form, up to 4 bytes.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                digits
                    .iter()
                    .fold(0, |length, &digit| length << 8 | usize::from(digit)),
                rest,
            )
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const NUMERIC_STRING: u8 = 0x12;
const PRINTABLE_STRING: u8 = 0x13;
const T61_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    fn issued_to(fill: impl FnOnce(&mut DistinguishedName)) -> Option<PeerCertificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        fill(&mut params.distinguished_name);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        parse(certificate.der())
    }

    #[test]
    fn the_subject_is_written_with_the_most_specific_part_first() {
        let parsed = issued_to(|name| {
            name.push(DnType::CountryName, "DE");
            name.push(DnType::OrganizationName, "Ruß, Öl & \"Co\"");
            name.push(DnType::OrganizationalUnitName, " #1");
            name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 311, 2]), "x");
            name.push(
                DnType::CommonName,
                DnValue::Utf8String("meter 7".to_owned()),
            );
        })
        .unwrap();
        assert_eq!(parsed.common_name.as_deref(), Some("meter 7"));
        assert_eq!(
            parsed.subject,
            r#"CN=meter 7,1.3.6.1.4.1.311.2=x,OU=\ #1,O=Ruß\, Öl & \"Co\",C=DE"#
        );
    }

    #[test]
    fn a_subject_may_have_no_common_name_or_be_empty() {
        let parsed = issued_to(|name| name.push(DnType::OrganizationName, "O")).unwrap();
        assert_eq!((parsed.common_name, &parsed.subject[..]), (None, "O=O"));
        let parsed = issued_to(|_| ()).unwrap();
        assert_eq!((parsed.common_name, &parsed.subject[..]), (None, ""));
    }

    #[test]
    fn a_name_with_a_nul_is_nobody() {
        assert_eq!(
            issued_to(|name| name.push(DnType::CommonName, "admin\0.example")),
            None
        );
    }

    #[test]
    fn any_cut_of_a_certificate_is_refused_or_read_without_a_panic() {
        let certificate = CertificateParams::default()
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        let der = certificate.der();
        for length in 0..der.len() {
            let _ = parse(&der[..length]);
        }
        assert_eq!(parse(&[0x30, 0x85, 1, 2, 3, 4, 5]), None);
    }
}
