complete -c wsecho -l addr -d 'Address to listen on, repeatable' -r -f
complete -c wsecho -l tls-cert -d 'TLS certificate chain, in PEM' -r -F
complete -c wsecho -l tls-key -d 'The certificate\'s private key, in PEM' -r -F
complete -c wsecho -l max-connections -d 'Maximum WebSockets' -r -f
complete -c wsecho -l max-connections-per-ip -d 'Maximum per IP; 0: no limit' -r -f
complete -c wsecho -l origin -d 'Origin to let in, repeatable [default: any]' -r -f
complete -c wsecho -l proxy-protocol -d 'Expect a PROXY header [default: off]' -r -f -a "on\t''
off\t''"
complete -c wsecho -l proxy-protocol-from -d 'Who sends it, repeatable [default: all]' -r -f
complete -c wsecho -l subprotocol -d 'Subprotocol [default: the first offered]' -r -f
complete -c wsecho -l prefix -d 'Text prefix' -r -f
complete -c wsecho -l behaviors -d 'Serve /do and the cases' -r -f -a "on\t''
off\t''"
complete -c wsecho -l compression -d 'Compression [default: no-context-takeover]' -r -f -a "no-context-takeover\t''
context-takeover\t''
off\t''"
complete -c wsecho -l max-message-size -d 'Maximum message, inflated' -r -f
complete -c wsecho -l max-buffered -d 'Memory for all messages' -r -f
complete -c wsecho -l cases -d 'Cases to select [default: the 517 of Autobahn]' -r -f
complete -c wsecho -l exclude-cases -d 'Cases to leave out' -r -f
complete -c wsecho -l case-messages -d 'Messages in each long case' -r -f
complete -c wsecho -l reports -d 'Directory for reports [default: none]' -r -F
complete -c wsecho -l handshake-timeout -d 'For the HTTP request' -r -f
complete -c wsecho -l ping-interval -d 'Silence before a ping; 0: never' -r -f
complete -c wsecho -l ping-timeout -d 'For an answer to a ping' -r -f
complete -c wsecho -l write-timeout -d 'To read or send 64 KiB' -r -f
complete -c wsecho -l close-timeout -d 'For an answer to a close' -r -f
complete -c wsecho -l log-file -d 'File to append to [default: stderr]' -r -F
complete -c wsecho -s v -l verbose -d 'Log more: messages; -vv frames, too'
complete -c wsecho -s q -l quiet -d 'Log less: warnings; -qq errors only'
complete -c wsecho -s h -l help -d 'Print help (see more with \'--help\')'
complete -c wsecho -s V -l version -d 'Print version'
