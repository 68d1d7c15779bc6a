//! The options of a MongoDB connection string, as users of other drivers write them.

/// Options of other drivers that the hub takes and leaves out: they choose compression, which this driver has not, or
/// deadlines, which the hub has of its own, or what only matters where documents are written or shown.
const LEFT_OUT: [&str; 12] = [
    "compressors",
    "fsync",
    "safe",
    "slaveok",
    "sockettimeoutms",
    "timeoutms",
    "tlsdisablecertificaterevocationcheck",
    "tlsdisableocspendpointcheck",
    "uuidrepresentation",
    "waitqueuemultiple",
    "waitqueuetimeoutms",
    "zlibcompressionlevel",
];
/// Older names of options.
const RENAMED: [(&str, &str); 4] = [
    ("j", "journal"),
    ("wtimeout", "wtimeoutms"),
    ("sslcertificateauthorityfile", "tlscafile"),
    ("sslpemkeyfile", "tlscertificatekeyfile"),
];
/// Options that the driver takes.
const KNOWN: [&str; 36] = [
    "appname",
    "authmechanism",
    "authmechanismproperties",
    "authsource",
    "connecttimeoutms",
    "directconnection",
    "enableoverloadretargeting",
    "heartbeatfrequencyms",
    "journal",
    "loadbalanced",
    "localthresholdms",
    "maxadaptiveretries",
    "maxconnecting",
    "maxidletimems",
    "maxpoolsize",
    "maxstalenessseconds",
    "minpoolsize",
    "readconcernlevel",
    "readpreference",
    "readpreferencetags",
    "replicaset",
    "retryreads",
    "retrywrites",
    "servermonitoringmode",
    "serverselectiontimeoutms",
    "srvmaxhosts",
    "srvservicename",
    "ssl",
    "tls",
    "tlsallowinvalidcertificates",
    "tlscafile",
    "tlscertificatekeyfile",
    "tlscertificatekeyfilepassword",
    "tlsinsecure",
    "w",
    "wtimeoutms",
];

/// The string for the driver, without the options that have no meaning here.
///
/// # Errors
/// The name of an option that nobody knows; never another piece of the string, which may be of a
/// password.
pub(super) fn prepared(uri: &str) -> Result<String, String> {
    let after_user = uri.rfind('@').map_or(0, |at| at + 1);
    let Some(question_mark) = uri[after_user..].find('?').map(|at| after_user + at) else { return Ok(uri.to_owned()) };
    let (base, query) = (&uri[..question_mark], &uri[question_mark + 1..]);
    let mut kept: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("an option has no value; write key=value")?;
        let key = key.to_ascii_lowercase();
        let key = RENAMED.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| (*new).to_owned());
        if LEFT_OUT.contains(&key.as_str()) {
            continue;
        }
        if !KNOWN.contains(&key.as_str()) {
            // A password with a question mark would have other characters, or be shorter.
            let is_name = (3..=40).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_lowercase());
            return Err(if is_name {
                format!("the option {key} is unknown, or not supported")
            } else {
                "an option is unknown".to_owned()
            });
        }
        kept.push(format!("{key}={value}"));
    }
    Ok(if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) })
}

/// The option without which the driver understands the string; none where that is not one alone.
pub(super) fn culprit(uri: &str, is_right: impl Fn(&str) -> bool) -> Option<String> {
    let after_user = uri.rfind('@').map_or(0, |at| at + 1);
    let question_mark = uri[after_user..].find('?').map(|at| after_user + at)?;
    let pairs: Vec<&str> = uri[question_mark + 1..].split('&').collect();
    let without = |left_out: usize| {
        let rest: Vec<&str> =
            pairs.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, pair)| *pair).collect();
        if rest.is_empty() {
            uri[..question_mark].to_owned()
        } else {
            format!("{}?{}", &uri[..question_mark], rest.join("&"))
        }
    };
    let at = (0..pairs.len()).find(|at| is_right(&without(*at)))?;
    pairs[at].split_once('=').map(|(key, _)| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_other_drivers_are_left_out_or_named() {
        for (given, expected) in [
            ("mongodb://u:p@h/db", "mongodb://u:p@h/db"),
            ("mongodb://u:p@h/?compressors=zstd,zlib&zlibCompressionLevel=9", "mongodb://u:p@h/"),
            ("mongodb://h/?socketTimeoutMS=1000&w=majority&uuidRepresentation=standard", "mongodb://h/?w=majority"),
            (
                "mongodb+srv://u:p%3Fx@h/?j=true&wtimeout=5&retryWrites=true",
                "mongodb+srv://u:p%3Fx@h/?journal=true&wtimeoutms=5&retrywrites=true",
            ),
            ("mongodb://h/?sslCertificateAuthorityFile=%2Fca.pem&timeoutMS=5", "mongodb://h/?tlscafile=%2Fca.pem"),
        ] {
            assert_eq!(prepared(given).as_deref(), Ok(expected));
        }
        for (given, says) in [
            ("mongodb://u:p@h/?tlsAllowInvalidHostnames=true", "option tlsallowinvalidhostnames"),
            ("mongodb://u:p@h/?replicatSet=rs0", "option replicatset"),
            ("mongodb://u:p@h/?geheim", "an option has no value"),
            ("mongodb://u:ge?heim=1@h/?ge-heim=1", "an option is unknown"),
        ] {
            let error = prepared(given).unwrap_err();
            assert!(error.contains(says) && !error.contains("heim"), "{given}: {error}");
        }
    }

    #[test]
    fn the_option_that_is_wrong_is_found() {
        let is_right = |uri: &str| !uri.contains("maxpoolsize=many");
        let uri = "mongodb://u:p@h/?w=1&maxpoolsize=many&tls=true";
        assert_eq!(culprit(uri, is_right).as_deref(), Some("maxpoolsize"));
        assert_eq!(culprit("mongodb://h/?maxpoolsize=many", is_right).as_deref(), Some("maxpoolsize"));
        assert_eq!(culprit("mongodb://maxpoolsize=many/?w=1", is_right), None);
    }
}
