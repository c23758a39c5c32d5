/* The network of a container in a virtual machine.
 *
 * Theory of operation. Whoever runs the container gives it a network namespace and puts
 * devices with addresses and routes there: an engine before the container is made, a hook while
 * it is, or some engine between create and start. To them the jail's namespace is the
 * container's. The machine has a card for each such device, and a tap in the namespace is the
 * card's other end:
 *
 *   host           jail's network namespace                     guest
 *   bridge -- veth == veth "eth0" -- redirected -- "isle-tap0" -- card "eth0"
 *
 * What either of the two in the namespace receives the other sends (sys/netdev.h), so that
 * the device's cable ends at the card; and the card gets the device's MAC address, MTU,
 * addresses, routes and neighbours, by the agent, before the program starts.
 *
 * Cards cannot come later than the machine. When there is no device yet at creation, but
 * somebody may bring some until the start, the machine gets NETWORK_SPARE_CARDS, of which the
 * container sees those that are needed.
 *
 *   ROOT/ID/vm/network.json    which device is joined to which card: written before it is done,
 *                              so that what a killed runtime has made is found by delete
 *
 * A tap goes with the last descriptor of it, and the machine holds the only one. What
 * redirects the device stays with the device where the namespace outlives the container:
 * network_leave() removes that. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/json.h"
#include "sys/netdev.h"

#define NETWORK_CARDS_MAX   8
#define NETWORK_SPARE_CARDS 2
#define NETWORK_FILE        "network.json"

struct network_card {
        char *mac;            /* of the card before it is the device's */
        uint32_t tap;         /* its index in the namespace */
        struct netdev device; /* index 0: a spare card */
};

struct network {
        uint64_t device, inode; /* of the namespace */
        struct network_card *cards;
        size_t cards_length;
};

void network_finish(struct network *network);
/* Of a container's directory ROOT/ID/vm; no file is a network without cards. */
int network_read(int directory_fd, struct network *ret, struct err *err);

/* Makes the cards' taps, `ret_fds` (the caller's), and writes the file. `spare`: devices may
 * still come. */
int network_create(int directory_fd, int netns_fd, bool spare, int ret_fds[NETWORK_CARDS_MAX],
                   size_t *ret_length, struct err *err);
/* Joins what devices there are now to the cards, and writes their configuration. Done again, it
 * adds what is new. */
int network_join(int directory_fd, int netns_fd, struct err *err);
/* Undoes that; `netns_fd` may be another namespace than it was, where the name was used again. */
int network_leave(const struct network *network, int netns_fd, struct err *err);

#define auto_network __attribute__((cleanup(network_finish))) struct network
