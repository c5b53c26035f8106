//! The options that every client program has, stamped into each program's own argh struct.
//!
//! argh cannot flatten one struct into another, so the table below exists once, as a macro: it makes [`ConnectionArgs`],
//! and [`client_program!`] puts the same fields behind the program's own. Types stand in braces, because a type that went
//! through `$type:ty` is opaque to argh's derive macro.

/// Hands the table of common options to the macro `$callback`, behind `$head`.
macro_rules! connection_options {
    ($callback:ident { $($head:tt)* }) => {
        $callback! {
            { $($head)* }

            // Where to.
            /// the broker: [mqtt|ws][s]://[user][:password]@host[:port][/path], unix:///path. Environment: HBMQTT_URL
            #[argh(option, short = 'L', arg_name = "url")]
            url: {Option<String>},
            /// the broker's host name or address, instead of --url
            #[argh(option, arg_name = "host")]
            host: {Option<String>},
            /// the broker's port (1883, with TLS 8883, with WebSocket 80 and 443)
            #[argh(option, short = 'p', arg_name = "port", from_str_fn(crate::shared::client::values::port))]
            port: {Option<u16>},
            /// the broker's Unix socket, instead of --url
            #[argh(option, arg_name = "path")]
            unix: {Option<String>},
            /// with --host: MQTT over WebSocket
            #[argh(switch)]
            ws: {bool},
            /// with --host and --ws: the path to ask for (/)
            #[argh(option, arg_name = "path")]
            ws_path: {Option<String>},
            /// the local address to connect from
            #[argh(option, short = 'A', arg_name = "address", from_str_fn(crate::shared::client::values::address))]
            bind: {Option<std::net::IpAddr>},

            /// a SOCKS proxy to connect through: socks5h://[user[:password]@]host[:port]
            #[argh(option, arg_name = "url", from_str_fn(crate::shared::client::values::proxy))]
            proxy: {Option<hbmqtt::net::socks::Proxy>},

            // Who.
            /// user name; goes before the one in the URL. Environment: HBMQTT_USERNAME
            #[argh(option, short = 'u', arg_name = "name")]
            username: {Option<String>},
            /// password, visible in the process list; '-' asks for it. Environment: HBMQTT_PASSWORD
            #[argh(option, short = 'P', arg_name = "password")]
            password: {Option<String>},
            /// a file whose first line is the password
            #[argh(option, arg_name = "file")]
            password_file: {Option<String>},
            /// client identifier (PROGRAM/PID-HOST)
            #[argh(option, short = 'i', arg_name = "id")]
            client_id: {Option<String>},
            /// client identifier: this and the process id
            #[argh(option, short = 'I', arg_name = "prefix")]
            id_prefix: {Option<String>},

            // The session.
            /// keep alive in seconds, 0 to 65535; 0 turns it off (10)
            #[argh(option, short = 'k', arg_name = "seconds", from_str_fn(crate::shared::client::values::keep_alive))]
            keepalive: {Option<u16>},
            /// MQTT version: 3.1, 3.1.1 or 5 (5, else 3.1.1)
            #[argh(option, short = 'V', arg_name = "version", from_str_fn(crate::shared::client::values::version))]
            protocol_version: {Option<hbmqtt::proto::ProtocolVersion>},
            /// start with an empty session: the default without -i
            #[argh(switch)]
            clean_session: {bool},
            /// use the session that the broker keeps under this client identifier: the default with -i
            #[argh(switch)]
            no_clean_session: {bool},
            /// keep what is on its way in this file, so that the next run under this client identifier goes on with it; needs -i
            #[argh(option, arg_name = "file")]
            store: {Option<String>},
            /// MQTT 5: keep the session this many seconds after the connection; -1 or 'never' = for ever (0 with a clean session, else for ever)
            #[argh(option, short = 'x', arg_name = "seconds", from_str_fn(crate::shared::client::values::session_expiry))]
            session_expiry: {Option<u32>},
            /// MQTT 5: a property, COMMAND PROPERTY VALUE or COMMAND user-property NAME VALUE; repeatable
            #[argh(option, short = 'D', arg_name = "property")]
            property: {Vec<String>},
            /// connect again when the connection is lost: as often as this, negative = for ever
            #[argh(option, arg_name = "count")]
            reconnect_retries: {Option<i64>},
            /// the longest pause between two attempts to connect again, in seconds (10)
            #[argh(option, arg_name = "seconds")]
            reconnect_max_interval: {Option<u32>},
            /// do not connect again, whatever the configuration says
            #[argh(switch)]
            no_reconnect: {bool},
            /// how long one attempt to connect may take, in seconds (30)
            #[argh(option, arg_name = "seconds", from_str_fn(crate::shared::client::values::seconds))]
            connect_timeout: {Option<std::time::Duration>},

            // TLS.
            /// trust the authorities in this PEM file (without --ca-*: those of the system)
            #[argh(option, arg_name = "file")]
            ca_file: {Option<String>},
            /// trust the authorities in the PEM files of this directory
            #[argh(option, arg_name = "directory")]
            ca_path: {Option<String>},
            /// trust the authorities in this PEM text
            #[argh(option, arg_name = "pem")]
            ca_data: {Option<String>},
            /// the client's certificate chain, a PEM file; needs --key
            #[argh(option, arg_name = "file")]
            cert: {Option<String>},
            /// the key of that certificate, a PEM file without a pass phrase
            #[argh(option, arg_name = "file")]
            key: {Option<String>},
            /// accept a certificate that was made for another host name: not secure
            #[argh(switch)]
            insecure: {bool},
            /// accept any certificate: anybody on the way can read and change everything
            #[argh(switch)]
            insecure_any_certificate: {bool},
            /// trust the authorities of the system: the default without --ca-*; with --host it asks for TLS
            #[argh(switch)]
            tls_use_os_certs: {bool},
            /// offer this version of TLS only: 1.2 or 1.3 (both)
            #[argh(option, arg_name = "version", from_str_fn(crate::shared::client::values::tls_version))]
            tls_version: {Option<hbmqtt::net::tls::TlsVersions>},
            /// offer this protocol (ALPN); repeatable
            #[argh(option, arg_name = "protocol")]
            tls_alpn: {Vec<String>},
            /// append the secrets of the TLS connection to this file, for Wireshark
            #[argh(option, arg_name = "file")]
            tls_keylog: {Option<String>},
            /// with --host: no TLS, even on port 8883
            #[argh(switch)]
            no_tls: {bool},

            // The will.
            /// the topic of the will, which the broker publishes if this client disappears
            #[argh(option, arg_name = "topic")]
            will_topic: {Option<String>},
            /// the payload of the will (empty)
            #[argh(option, arg_name = "message")]
            will_message: {Option<String>},
            /// the QoS of the will: 0, 1 or 2 (0)
            #[argh(option, arg_name = "qos", from_str_fn(crate::shared::client::values::qos))]
            will_qos: {Option<hbmqtt::proto::QoS>},
            /// the will is a retained message
            #[argh(switch)]
            will_retain: {bool},

            // WebSocket.
            /// further headers of the WebSocket handshake, a JSON object of strings
            #[argh(option, arg_name = "json", from_str_fn(crate::shared::client::values::headers))]
            extra_headers: {Option<crate::shared::client::values::Headers>},
            /// a further header of the WebSocket handshake, 'Name: value'; repeatable
            #[argh(option, arg_name = "header", from_str_fn(crate::shared::client::values::header))]
            ws_header: {Vec<(String, String)>},

            // The program itself.
            /// a YAML file with settings of the client. Environment: HBMQTT_CONFIG
            #[argh(option, short = 'c', arg_name = "file")]
            config: {Option<String>},
            /// a file with one option a line
            #[argh(option, short = 'o', arg_name = "file")]
            options_file: {Option<String>},
            /// log what is sent and received; twice: everything
            #[argh(switch, short = 'd')]
            debug: {u8},
            /// log errors only
            #[argh(switch)]
            quiet: {bool},
            /// plain or json (plain)
            #[argh(option, arg_name = "format", from_str_fn(crate::shared::client::values::log_format))]
            log_format: {Option<crate::shared::log::Format>},
            /// print the version
            #[argh(switch)]
            version: {bool},
            /// print a completion script for bash, zsh or fish
            #[argh(option, arg_name = "shell")]
            completions: {Option<String>},
            /// print the manual page, roff
            #[argh(switch)]
            man: {bool},

            // Known from mosquitto's tools.
            /// accepted without effect: always so
            #[argh(switch, hidden_help)]
            nodelay: {bool},
            /// refused: rustls has no pre-shared keys
            #[argh(option, hidden_help)]
            psk: {Option<String>},
            /// refused: rustls has no pre-shared keys
            #[argh(option, hidden_help)]
            psk_identity: {Option<String>},
            /// refused: an OpenSSL engine
            #[argh(option, hidden_help)]
            tls_engine: {Option<String>},
            /// refused: an OpenSSL engine
            #[argh(option, hidden_help)]
            tls_engine_kpass_sha1: {Option<String>},
            /// refused unless pem
            #[argh(option, hidden_help)]
            keyform: {Option<String>},
            /// refused: rustls chooses by itself
            #[argh(option, hidden_help)]
            ciphers: {Option<String>},
            /// refused: no SRV look-up
            #[argh(switch, short = 'S', hidden_help)]
            srv: {bool},
            /// refused: rustls cannot decrypt keys
            #[argh(option, hidden_help)]
            key_password: {Option<String>},
        }
    };
}

macro_rules! declare_connection_args {
    ({} $($(#[$($attribute:tt)*])* $field:ident: {$($type:tt)+},)*) => {
        /// The common options as they were given.
        ///
        /// No `Debug`: a password may be among them.
        #[expect(
            dead_code,
            reason = "options_file was read by the normaliser, nodelay is always so"
        )]
        pub(crate) struct ConnectionArgs {
            $(pub(crate) $field: $($type)+,)*
        }
    };
}

connection_options!(declare_connection_args {});

/// Declares the argh struct of a client program: its own options, then the common ones.
macro_rules! client_program {
    ($(#[$($outer:tt)*])* struct $name:ident { $($own:tt)* }) => {
        connection_options!(stamp_client_program { [$(#[$($outer)*])*] $name { $($own)* } });
    };
}

macro_rules! stamp_client_program {
    (
        { [$($outer:tt)*] $name:ident { $($own:tt)* } }
        $($(#[$($attribute:tt)*])* $field:ident: {$($type:tt)+},)*
    ) => {
        #[derive(argh::FromArgs, argh::ArgsInfo)]
        $($outer)*
        pub(crate) struct $name {
            $($own)*
            $($(#[$($attribute)*])* pub(crate) $field: $($type)+,)*
        }

        impl $crate::shared::client::ClientArgs for $name {
            fn take_connection(&mut self) -> $crate::shared::client::ConnectionArgs {
                $crate::shared::client::ConnectionArgs {
                    $($field: std::mem::take(&mut self.$field),)*
                }
            }
        }
    };
}
