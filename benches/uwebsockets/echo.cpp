// uWebSockets' own EchoServer example, without TLS.
// usage: uwebsockets PORT [context-takeover|no-context-takeover]
#include "App.h"
#include <cstdlib>
#include <cstring>

int main(int count, char **arguments) {
    struct Client {};
    static bool compress = count > 2;
    int compression = uWS::DISABLED;
    if (compress) {
        compression = std::strcmp(arguments[2], "context-takeover") == 0
            ? uWS::DEDICATED_COMPRESSOR | uWS::DEDICATED_DECOMPRESSOR
            : uWS::SHARED_COMPRESSOR | uWS::SHARED_DECOMPRESSOR;
    }
    uWS::App()
        .ws<Client>("/*", {
            .compression = uWS::CompressOptions(compression),
            .maxPayloadLength = 64 * 1024 * 1024,
            .idleTimeout = 120,
            .maxBackpressure = 64 * 1024 * 1024,
            .message = [](auto *client, std::string_view message, uWS::OpCode opcode) {
                client->send(message, opcode, compress);
            },
        })
        .listen("127.0.0.1", std::atoi(arguments[1]), [](auto *socket) { if (!socket) std::exit(1); })
        .run();
}
