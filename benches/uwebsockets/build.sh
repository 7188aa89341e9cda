#!/bin/sh
# Builds echo.cpp, and prints the path of the program. The sources of uWebSockets come with a crate that
# Cargo.toml names and nothing links.
set -eu
cd "$(dirname "$0")/.."
program=$PWD/target/uwebsockets
crates=$(cargo metadata --format-version 1 --locked)
uws=$(printf %s "$crates" | tr '"' '\n' |
    sed -n 's|\(/libuwebsockets-sys-[0-9.]*\)/Cargo.toml$|\1/uWebSockets|p')
if [ ! "$program" -nt uwebsockets/echo.cpp ]; then
    mkdir -p target
    cc -O3 -flto -w -DLIBUS_NO_SSL -I "$uws/src" -I "$uws/uSockets/src" \
        -x c "$uws"/uSockets/src/*.c "$uws"/uSockets/src/eventing/*.c \
        -x c++ uwebsockets/echo.cpp -o "$program" -lstdc++ -lz
fi
echo "$program"
