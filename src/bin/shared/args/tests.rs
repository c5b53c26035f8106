use super::*;

/// A stand-in with every kind of option.
#[derive(FromArgs, ArgsInfo, Debug, PartialEq, Eq)]
#[argh(help_triggers("-h", "--help"))]
struct Sample {
    /// address
    #[argh(option)]
    url: Option<String>,
    /// user name
    #[argh(option)]
    username: Option<String>,
    /// topic
    #[argh(option, short = 't')]
    topic: Vec<String>,
    /// quality of service
    #[argh(option, short = 'q')]
    qos: Option<u8>,
    /// say less
    #[argh(switch)]
    quiet: bool,
    /// message
    #[argh(option, short = 'm')]
    message: Option<String>,
    /// null message
    #[argh(switch, short = 'n')]
    null_message: bool,
    /// retain
    #[argh(switch, short = 'r')]
    retain: bool,
    /// debug
    #[argh(switch, short = 'd')]
    debug: u8,
    /// certificates
    #[argh(option)]
    ca_file: Option<String>,
    /// certificates
    #[argh(option)]
    ca_path: Option<String>,
    /// identifier
    #[argh(option, short = 'i')]
    client_id: Option<String>,
    /// will topic
    #[argh(option)]
    will_topic: Option<String>,
    /// will message
    #[argh(option)]
    will_message: Option<String>,
    /// session expiry
    #[argh(option, short = 'x')]
    session_expiry: Option<i64>,
    /// property
    #[argh(option, short = 'D')]
    property: Vec<String>,
    /// options file
    #[argh(option, short = 'o')]
    options_file: Option<String>,
}

const TABLE: Table = Table {
    aliases: &[&[
        ("cafile", "ca-file"),
        ("id", "client-id"),
        ("identifier", "client-id"),
        ("gone", "not-in-this-program"),
    ]],
    letters: &[('C', "qos")],
    preferred: &["url", "qos"],
    words: Words::Refused,
    property: Some("property"),
    shorthands: &[&[
        Shorthand {
            name: "content-type",
            words: "publish content-type",
            value: ShorthandValue::One,
        },
        Shorthand {
            name: "user-property",
            words: "publish user-property",
            value: ShorthandValue::Pair,
        },
        Shorthand {
            name: "ask",
            words: "connect request-response-information",
            value: ShorthandValue::Fixed("1"),
        },
    ]],
    groups: &[&["message", "null-message"]],
    options_file: Some("options-file"),
    environment: &[],
};

fn read_with(table: &Table, args: &[&str]) -> Result<Request<Sample>, String> {
    parse("sample", table, args.iter().map(OsString::from), None).map_err(|failure| failure.message)
}

fn read(args: &[&str]) -> Sample {
    match read_with(&TABLE, args) {
        Ok(Request::Run(sample)) => sample,
        other => panic!("{args:?} gave {other:?}"),
    }
}

fn refused(args: &[&str]) -> String {
    read_with(&TABLE, args).expect_err("should be refused")
}

#[test]
fn values_may_be_attached_to_letters_and_long_names() {
    let all = [
        read(&["-q", "1", "-ta/b", "-m", "x"]),
        read(&["-q1", "-t", "a/b", "-mx"]),
        read(&["--qos=1", "-t=a/b", "-m=x"]),
        read(&["--qos", "1", "--topic=a/b", "--message=x"]),
        read(&["-C1", "--topic", "a/b", "--message", "x"]),
    ];
    for sample in &all {
        assert_eq!(sample.qos, Some(1));
        assert_eq!(sample.topic, ["a/b"]);
        assert_eq!(sample.message.as_deref(), Some("x"));
    }
}

#[test]
fn letters_may_be_written_as_one_cluster() {
    let sample = read(&["-drq", "2", "-nt", "x"]);
    assert!(sample.debug == 1 && sample.retain && sample.null_message);
    assert_eq!((sample.qos, sample.topic), (Some(2), vec!["x".to_owned()]));
    assert_eq!(read(&["-dd"]).debug, 2);
    assert_eq!(read(&["-d", "-d"]).debug, 2);
}

#[test]
fn long_names_may_be_shortened_while_they_are_unambiguous() {
    assert_eq!(read(&["--ur", "u"]).url.as_deref(), Some("u"));
    assert_eq!(read(&["--will-t", "w"]).will_topic.as_deref(), Some("w"));
    assert_eq!(
        refused(&["--ca", "x"]),
        "option '--ca' could be --ca-file or --ca-path"
    );
}

#[test]
fn an_abbreviation_prefers_the_seed_option() {
    assert_eq!(read(&["--u", "x"]).url.as_deref(), Some("x"));
    assert_eq!(read(&["--q", "1"]).qos, Some(1));
    assert!(read(&["--qui"]).quiet);
}

#[test]
fn other_names_reach_the_same_option() {
    let sample = read(&["--cafile=/x", "--id", "me"]);
    assert_eq!(sample.ca_file.as_deref(), Some("/x"));
    assert_eq!(sample.client_id.as_deref(), Some("me"));
    assert_eq!(read(&["--identifi", "me"]).client_id.as_deref(), Some("me"));
    assert_eq!(refused(&["--gone"]), "unknown option '--gone'");
}

#[test]
fn the_argument_after_an_option_is_its_value_whatever_it_looks_like() {
    for value in [
        "--foo",
        "-1",
        "--",
        "-d",
        "--help",
        "-h",
        "",
        "help",
        "--cafile=/x",
    ] {
        assert_eq!(read(&["-m", value, "-d"]).message.as_deref(), Some(value));
    }
    assert_eq!(read(&["-x", "-1"]).session_expiry, Some(-1));
}

#[test]
fn help_is_found_among_other_options() {
    for args in [
        &["-h"][..],
        &["--help"],
        &["-h", "-t", "x"],
        &["-t", "x", "--help"],
        &["-dh"],
        &["--hel"],
    ] {
        match read_with(&TABLE, args) {
            Ok(Request::Print(text)) => assert!(text.starts_with("Usage: sample"), "{text}"),
            other => panic!("{args:?} gave {other:?}"),
        }
    }
}

#[test]
fn a_switch_takes_no_value() {
    assert_eq!(refused(&["--debug=1"]), "option '--debug' takes no value");
    assert_eq!(refused(&["-d=1"]), "option '-d' takes no value");
    assert_eq!(refused(&["-dz"]), "unknown option '-z'");
}

#[test]
fn a_missing_value_is_named() {
    assert_eq!(refused(&["-t"]), "option '-t' needs a value");
    assert_eq!(refused(&["--url"]), "option '--url' needs a value");
    assert_eq!(
        refused(&["-D", "connect", "receive-maximum"]),
        "option '-D' needs COMMAND PROPERTY VALUE, or COMMAND user-property NAME VALUE"
    );
}

#[test]
fn an_option_given_twice_is_refused_unless_it_repeats() {
    assert_eq!(
        refused(&["-q", "1", "-q", "1"]),
        "option '--qos' is given twice"
    );
    assert_eq!(read(&["-t", "a", "-t", "b"]).topic, ["a", "b"]);
}

#[test]
fn an_unreadable_value_is_explained() {
    assert_eq!(
        refused(&["-q", "abc"]),
        "option '--qos': 'abc': invalid digit found in string"
    );
}

#[test]
fn an_unknown_option_comes_with_the_nearest_name() {
    assert_eq!(
        refused(&["--topics", "x"]),
        "unknown option '--topics', did you mean '--topic'?"
    );
    assert_eq!(
        refused(&["--entirely-else"]),
        "unknown option '--entirely-else'"
    );
}

#[test]
fn plain_words_belong_to_the_words_option_or_are_refused() {
    assert_eq!(refused(&["-t", "a", "b"]), "unexpected argument 'b'");
    let table = Table {
        words: Words::Of("topic"),
        ..TABLE
    };
    match read_with(&table, &["-t", "a", "b", "-q", "1", "--", "-c"]) {
        Ok(Request::Run(sample)) => assert_eq!(sample.topic, ["a", "b", "-c"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_property_takes_three_or_four_words() {
    let sample = read(&[
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
        "-D",
        "connect",
        "receive-maximum",
        "20",
        "-d",
    ]);
    assert_eq!(
        sample.property,
        [
            "publish\u{1f}user-property\u{1f}k\u{1f}v",
            "connect\u{1f}receive-maximum\u{1f}20"
        ]
    );
    assert_eq!(sample.debug, 1);
}

#[test]
fn a_shorthand_stands_for_a_property() {
    let sample = read(&[
        "--content-type=text/plain",
        "--user-property",
        "k=v=w",
        "--ask",
        "-d",
    ]);
    assert_eq!(
        sample.property,
        [
            "publish\u{1f}content-type\u{1f}text/plain",
            "publish\u{1f}user-property\u{1f}k\u{1f}v=w",
            "connect\u{1f}request-response-information\u{1f}1"
        ]
    );
    assert_eq!(sample.debug, 1);
    assert_eq!(refused(&["--ask=1"]), "option '--ask' takes no value");
    assert_eq!(
        refused(&["--content-type"]),
        "option '--content-type' needs a value"
    );
    assert_eq!(
        refused(&["--user-property", "k"]),
        "option '--user-property': use NAME=VALUE"
    );
    assert_eq!(
        refused(&["--content-typ", "x"]),
        "unknown option '--content-typ', did you mean '--content-type'?"
    );
}

#[test]
fn the_command_line_overrides_an_options_file() {
    let file = "# defaults\n-q 2\n--topic from file\n\n-m text with spaces\n-D publish user-property k v\n";
    let with = |args: &[&str]| match parse::<Sample>(
        "sample",
        &TABLE,
        args.iter().map(OsString::from),
        Some(file),
    ) {
        Ok(Request::Run(sample)) => sample,
        other => panic!("{other:?}"),
    };
    let sample = with(&["-q", "1"]);
    assert_eq!(sample.qos, Some(1));
    assert_eq!(sample.topic, ["from file"]);
    assert_eq!(sample.message.as_deref(), Some("text with spaces"));
    assert_eq!(
        sample.property,
        ["publish\u{1f}user-property\u{1f}k\u{1f}v"]
    );
    let sample = with(&["-n", "-t", "here"]);
    assert_eq!(sample.message, None);
    assert_eq!(sample.topic, ["here"]);
}

#[test]
fn an_error_in_an_options_file_names_its_line() {
    let refused = parse::<Sample>("sample", &TABLE, [], Some("-q 1\n--bogus 1\n"));
    assert_eq!(
        refused.map_err(|failure| failure.message),
        Err("the defaults file, line 2: unknown option '--bogus'".to_owned())
    );
}

#[test]
fn an_argument_that_is_not_utf8_is_refused_with_a_way_out() {
    use std::os::unix::ffi::OsStringExt;
    let refused = parse::<Sample>("sample", &TABLE, [OsString::from_vec(vec![0xff])], None);
    let failure = refused.expect_err("not UTF-8");
    assert!(failure.message.contains("--payload-file"), "{failure}");
}

#[test]
fn edit_distance_counts_single_changes() {
    assert_eq!(edit_distance("topic", "topic"), 0);
    assert_eq!(edit_distance("topics", "topic"), 1);
    assert_eq!(edit_distance("tpoic", "topic"), 2);
    assert_eq!(edit_distance("", "abc"), 3);
}
