use super::*;

/// RFC 7677 §3.
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

fn pencil() -> Credentials {
    let salt = credentials::decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Credentials::derive(b"pencil", &salt, 4096)
}

fn server() -> ServerExchange {
    let first = ClientFirst::parse(CLIENT_FIRST.as_bytes()).unwrap();
    ServerExchange::new(&first, pencil(), SERVER_NONCE).0
}

/// RFC 7677 §3: the example, both sides.
#[test]
fn the_example_of_rfc_7677_comes_out_byte_for_byte() {
    let (mut client, first) = ClientExchange::new("user", b"pencil", "rOprNGfwEbeRWgbNEkqO");
    assert_eq!(first, CLIENT_FIRST);
    let parsed = ClientFirst::parse(first.as_bytes()).unwrap();
    assert_eq!(parsed.user, "user");
    let (server, answer) = ServerExchange::new(&parsed, pencil(), SERVER_NONCE);
    assert_eq!(answer, SERVER_FIRST);
    let last = client.answer(answer.as_bytes()).unwrap();
    assert_eq!(last, CLIENT_FINAL);
    let proof = server.finish(last.as_bytes()).unwrap();
    assert_eq!(proof, SERVER_FINAL);
    assert_eq!(client.verify(proof.as_bytes()), Ok(()));
}

#[test]
fn a_wrong_password_is_refused_on_both_sides() {
    let (mut client, _) = ClientExchange::new("user", b"pencils", "rOprNGfwEbeRWgbNEkqO");
    let last = client.answer(SERVER_FIRST.as_bytes()).unwrap();
    assert_eq!(server().finish(last.as_bytes()), None);
    assert_eq!(
        client.verify(SERVER_FINAL.as_bytes()),
        Err(ScramError::ServerSignature)
    );
}

#[test]
fn the_last_message_must_belong_to_the_exchange() {
    for (from, to) in [
        ("c=biws", "c=eSws"),
        ("hNlF$k0", "hNlF$k1"),
        ("p=dHzb", "p=dHzc"),
        (",p=", ",q="),
        ("c=biws,", ""),
        ("AndVQ=", ""),
        ("k0,p=", "k0x,p="),
    ] {
        let changed = CLIENT_FINAL.replace(from, to);
        assert_ne!(changed, CLIENT_FINAL);
        assert_eq!(server().finish(changed.as_bytes()), None, "{changed}");
    }
    assert_eq!(server().finish(b"\xff"), None);
    assert!(server().finish(CLIENT_FINAL.as_bytes()).is_some());
}

#[test]
fn first_messages_are_read_with_their_escapes_and_limits() {
    let user = |text: &str| ClientFirst::parse(text.as_bytes()).map(|first| first.user);
    for (text, name) in [
        ("n,,n=a,r=x", "a"),
        ("y,,n=a,r=x", "a"),
        ("n,a=a,n=a,r=x", "a"),
        ("n,,n=a=2Cb=3D,r=x,ext=1", "a,b="),
        ("n,a=a=2Cb,n=a=2Cb,r=x", "a,b"),
        ("n,,n=Jürgen,r=x", "Jürgen"),
    ] {
        assert_eq!(user(text).as_deref(), Some(name), "{text}");
    }
    for text in [
        "",
        "n,,",
        "n=a,r=x",
        "p=tls-unique,,n=a,r=x",
        "x,,n=a,r=x",
        "n,a=b,n=a,r=x",
        "n,b,n=a,r=x",
        "n,,m=1,n=a,r=x",
        "n,,n=,r=x",
        "n,,n=a",
        "n,,n=a,r=",
        "n,,n=a,r=x\u{7f}",
        "n,,r=x,n=a",
        "n,,n=a=2c,r=x",
        "n,,n=a=2,r=x",
        "n,,n=a=,r=x",
    ] {
        assert_eq!(user(text), None, "{text}");
    }
    assert_eq!(ClientFirst::parse(b"n,,n=\xff,r=x"), None);
}

#[test]
fn a_client_gives_up_on_odd_servers() {
    let answer = |text: &str| {
        let (mut client, _) = ClientExchange::new("user", b"pencil", "rOprNGfwEbeRWgbNEkqO");
        client.answer(text.as_bytes()).unwrap_err()
    };
    let replaced = |from: &str, to: &str| answer(&SERVER_FIRST.replace(from, to));
    assert_eq!(replaced("r=rOpr", "r=xOpr"), ScramError::Nonce);
    assert_eq!(replaced(SERVER_NONCE, ""), ScramError::Nonce);
    assert_eq!(replaced("i=4096", "i=4095"), ScramError::Iterations);
    assert_eq!(replaced("i=4096", "i=1000001"), ScramError::Iterations);
    assert_eq!(replaced("s=W22Z", "s=W22"), ScramError::Malformed);
    assert_eq!(replaced(",i=4096", ""), ScramError::Malformed);
    assert_eq!(answer("e=unknown-user"), ScramError::Malformed);
    let (client, _) = ClientExchange::new("user", b"pencil", "x");
    assert_eq!(client.verify(b"v=AAAA"), Err(ScramError::Malformed));
    assert_eq!(client.verify(b"e=other-error"), Err(ScramError::Refused));
}

#[test]
fn names_with_commas_and_equals_signs_go_through() {
    let (mut client, first) = ClientExchange::new("a,b=c", b"pw", &nonce().unwrap());
    let first = ClientFirst::parse(first.as_bytes()).unwrap();
    assert_eq!(first.user, "a,b=c");
    let credentials = Credentials::new(b"pw", 1).unwrap();
    assert_eq!(credentials.iterations(), MIN_ITERATIONS);
    let (server, answer) = ServerExchange::new(&first, credentials, &nonce().unwrap());
    let last = client.answer(answer.as_bytes()).unwrap();
    let proof = server.finish(last.as_bytes()).unwrap();
    assert_eq!(client.verify(proof.as_bytes()), Ok(()));
}

#[test]
fn credentials_are_read_as_they_are_written() {
    let text = pencil().to_string();
    assert_eq!(
        text,
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    );
    let read: Credentials = text.parse().unwrap();
    assert_eq!(read, pencil());
    assert!(read.verify(b"pencil") && !read.verify(b"Pencil") && !read.verify(b""));
    assert_eq!(format!("{read:?}"), "Credentials { iterations: 4096, .. }");
    let wrong = |from: &str, to: &str| {
        let changed = text.replace(from, to);
        changed.parse::<Credentials>().unwrap_err().to_string()
    };
    let form = "expected SCRAM-SHA-256$iterations:salt$storedkey:serverkey; `hbmqtt_passwd --scram` makes such a line";
    assert_eq!(wrong("SHA-256", "SHA-1"), form);
    assert_eq!(wrong("4096:", ""), form);
    assert_eq!(wrong("4096", "many"), form);
    assert_eq!(wrong("qY=:", "qY="), form);
    assert_eq!(wrong("2dU=", "2dU=$"), form);
    assert_eq!(
        wrong("4096", "4095"),
        "the iterations are not in the range 4,096 to 1,000,000"
    );
    assert_eq!(wrong("W22Z", "W2"), "the salt is not Base64");
    assert_eq!(wrong("W22ZaJ0SNY7soEsUEjb6gQ==", ""), "the salt is missing");
    assert_eq!(wrong("WG5d", ""), "a key is not 32 bytes in Base64");
    assert_eq!(wrong("2dU=", "2d!="), "a key is not 32 bytes in Base64");
}

#[test]
fn a_dummy_is_always_the_same_and_has_no_password() {
    let secret = [7; KEY_BYTES];
    let dummy = Credentials::dummy("nobody", &secret, 4096, 20);
    assert_eq!(dummy, Credentials::dummy("nobody", &secret, 4096, 20));
    assert_ne!(
        dummy.salt,
        Credentials::dummy("other", &secret, 4096, 20).salt
    );
    assert_ne!(
        dummy.salt,
        Credentials::dummy("nobody", &[8; 32], 4096, 20).salt
    );
    assert_eq!((dummy.salt_bytes(), dummy.iterations()), (20, 4096));
    assert!(!dummy.verify(b""));
}
