# /etc/varnish/default.vcl
vcl 4.1;

backend wsecho {
    .host = "127.0.0.1";
    .port = "1222";
}

sub vcl_recv {
    # Without this there is no WebSocket.
    if (req.http.Upgrade ~ "(?i)websocket") {
        return (pipe);
    }
    return (pass);
}

sub vcl_pipe {
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = req.http.Connection;
}
