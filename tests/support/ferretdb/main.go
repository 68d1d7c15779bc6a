// A MongoDB-wire server for the tests: FerretDB with SQLite, in the folder of the first argument, on the port of the second;
// with TLS where a certificate and its key are the third and the fourth.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	folder := strings.TrimSuffix(os.Args[1], "/") + "/"
	listener := ferretdb.ListenerConfig{TCP: "127.0.0.1:" + os.Args[2]}
	if len(os.Args) > 3 {
		listener = ferretdb.ListenerConfig{TLS: listener.TCP, TLSCertFile: os.Args[3], TLSKeyFile: os.Args[4]}
	}
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  listener,
		Handler:   "sqlite",
		// The test kills the server, not the machine under it.
		SQLiteURL: "file:" + folder + "?_pragma=synchronous(off)",
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := server.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
