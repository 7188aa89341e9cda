// uWebSockets' own EchoServer example, without TLS and compression.
#include "App.h"
#include <cstdlib>

int main(int, char **arguments) {
    struct Client {};
    uWS::App()
        .ws<Client>("/*", {
            .compression = uWS::DISABLED,
            .maxPayloadLength = 64 * 1024 * 1024,
            .idleTimeout = 120,
            .maxBackpressure = 64 * 1024 * 1024,
            .message = [](auto *client, std::string_view message, uWS::OpCode opcode) {
                client->send(message, opcode);
            },
        })
        .listen("127.0.0.1", std::atoi(arguments[1]), [](auto *socket) { if (!socket) std::exit(1); })
        .run();
}
