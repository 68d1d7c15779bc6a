// A control server for one tailnet, tailscale's own test control server: it prints its address and serves until its
// standard input ends. Each line on it is an order, answered with "done": `expire` and `renew` all keys, `rename NAME`
// all nodes, give them a `neighbour`. The argument is the suffix of the nodes' names. Nothing of it is shipped.
package main

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

func main() {
	capabilities := tailcfg.NodeCapMap{
		tailcfg.CapabilityHTTPS:                           nil,
		tailcfg.NodeAttrFunnel:                            nil,
		tailcfg.CapabilityFunnelPorts + "?ports=443,8443": nil,
	}
	control := &testcontrol.Server{
		// A relay that nobody answers on: one node needs none, and none outside this host may be asked.
		DERPMap: &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: {
			RegionID: 1, RegionCode: "none",
			Nodes: []*tailcfg.DERPNode{{Name: "1a", RegionID: 1, HostName: "127.0.0.1", IPv4: "127.0.0.1", DERPPort: 1, STUNPort: -1}},
		}}},
		MagicDNSDomain:          os.Args[1],
		DNSConfig:               &tailcfg.DNSConfig{Proxied: true},
		DefaultNodeCapabilities: &capabilities,
	}
	control.HTTPTestServer = httptest.NewUnstartedServer(http.HandlerFunc(control.ServeHTTP))
	control.HTTPTestServer.Start()
	fmt.Println(control.HTTPTestServer.URL)
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		switch order, name, _ := strings.Cut(orders.Text(), " "); order {
		case "expire", "renew":
			control.SetExpireAllNodes(order == "expire")
		case "rename":
			for _, node := range control.AllNodes() {
				node.Name = name + "." + os.Args[1] + "."
				control.UpdateNode(node)
			}
		case "neighbour":
			control.AddFakeNode()
		default:
			panic("no such order: " + order)
		}
		fmt.Println("done")
	}
}
