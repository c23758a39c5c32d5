/* Network devices as a container has them, with all that makes them work: read in one
 * network namespace, given to a device in another, also of another kernel.
 *
 * `nl` is a socket of netlink.h, in the namespace in question. Addresses are texts, as
 * programs show them, for they go through JSON. Only what a program would set by hand is there:
 * what the kernel makes itself (routes to a network from an address, link-local and
 * advertised ones) it makes again. Source: rtnetlink(7), tc-u32(8), tc-mirred(8). */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define NETDEV_MAC_TEXT 18 /* "02:00:00:00:00:01" with its NUL */

struct netdev_address {
        char *local; /* "10.88.0.2/16" */
        char *peer;  /* without length, of a point-to-point link; NULL */
        char *broadcast;
        uint32_t scope;
};

struct netdev_route { /* of the main table, with one next hop at most */
        char *to;     /* "0.0.0.0/0" */
        char *gateway, *source;
        uint32_t scope, metric, mtu;
        bool onlink;
};

struct netdev_neighbour { /* one that was set to stay */
        char *address, *mac;
};

struct netdev {
        uint32_t index;
        char *name, *mac;
        uint32_t mtu;
        bool up;
        bool no_ipv6; /* switched off by sysctl */
        struct netdev_address *addresses;
        size_t addresses_length;
        struct netdev_route *routes;
        size_t routes_length;
        struct netdev_neighbour *neighbours;
        size_t neighbours_length;
};

struct netdev_list {
        struct netdev *devices;
        size_t length;
};

/* All Ethernet devices of a namespace (veth, macvlan, real ones …; not loopbacks or
 * tunnels), in the order in which they came. */
int netdev_read(int nl, struct netdev_list *ret, struct err *err);
void netdev_finish(struct netdev *device);
void netdev_list_finish(struct netdev_list *list);

/* --- one device: netdev_configure.c --- */

/* Everything of `wanted` but the index, for the device `index` (whose names may differ),
 * and up if it is. */
int netdev_configure(int nl, uint32_t index, const struct netdev *wanted, struct err *err);
/* There it is called `name`. */
int netdev_move(int nl, uint32_t index, int netns_fd, const char *name, struct err *err);
int netdev_set_up(int nl, uint32_t index, uint32_t mtu, struct err *err);

/* --- what comes in here goes out there: netdev_redirect.c --- */

/* Whatever `from` receives is sent by `to`, and nothing else sees it. -EEXIST: somebody
 * does something with what it receives already. */
int netdev_redirect(int nl, uint32_t from, uint32_t to, struct err *err);
/* No error where there is none. */
int netdev_redirect_remove(int nl, uint32_t from, struct err *err);

#define auto_netdev_list __attribute__((cleanup(netdev_list_finish))) struct netdev_list
