// A control server for one tailnet, tailscale's own test control server: it prints its address and serves until its
// standard input ends. Nothing of it is shipped.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

func main() {
	capabilities := tailcfg.NodeCapMap{
		tailcfg.CapabilityHTTPS: nil,
		tailcfg.NodeAttrFunnel:  nil,
		tailcfg.CapabilityFunnelPorts + "?ports=443,8443": nil,
	}
	control := &testcontrol.Server{
		// A relay that nobody answers on: one node needs none, and none outside this host may be asked.
		DERPMap: &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: {
			RegionID: 1, RegionCode: "none",
			Nodes: []*tailcfg.DERPNode{{Name: "1a", RegionID: 1, HostName: "127.0.0.1", IPv4: "127.0.0.1", DERPPort: 1, STUNPort: -1}},
		}}},
		MagicDNSDomain:          "tail-scale.ts.net",
		DNSConfig:               &tailcfg.DNSConfig{Proxied: true},
		DefaultNodeCapabilities: &capabilities,
	}
	control.HTTPTestServer = httptest.NewUnstartedServer(http.HandlerFunc(control.ServeHTTP))
	control.HTTPTestServer.Start()
	fmt.Println(control.HTTPTestServer.URL)
	io.Copy(io.Discard, os.Stdin)
}
