#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/netdev.h"
#include "sys/netlink.h"

#define MAC_BYTES 6

struct place { /* an address, or a network */
        int family;
        uint8_t bytes[sizeof(struct in6_addr)];
        size_t size;
        uint8_t length; /* in bits */
};

/* "ADDRESS" or "ADDRESS/LENGTH". */
static int parse(const char *text, struct place *ret, struct err *err)
{
        const char *slash = text ? strchr(text, '/') : NULL;
        auto_free char *address = text ? xstrndup(text, strcspn(text, "/")) : xstrdup("");
        struct place place = { .family = strchr(address, ':') ? AF_INET6 : AF_INET };
        place.size = place.family == AF_INET6 ? sizeof(struct in6_addr) : sizeof(struct in_addr);
        uint32_t length = (uint32_t)place.size * 8;
        if (inet_pton(place.family, address, place.bytes) != 1 ||
            (slash && (str_to_u32(slash + 1, &length) < 0 || length > place.size * 8)))
                return err_plain(err, EINVAL, "'%s' is no address", text ? text : "");
        place.length = (uint8_t)length;
        *ret = place;
        return 0;
}

static int parse_mac(const char *text, uint8_t ret[MAC_BYTES], struct err *err)
{
        unsigned b[MAC_BYTES];
        char rest;
        if (!text || strlen(text) != NETDEV_MAC_TEXT - 1 ||
            sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
                   &rest) != MAC_BYTES)
                return err_plain(err, EINVAL, "'%s' is no MAC address", text ? text : "");
        for (size_t i = 0; i < MAC_BYTES; i++)
                ret[i] = (uint8_t)b[i];
        return 0;
}

static void begin_link(struct netlink_request *request, uint32_t index, unsigned flags)
{
        struct ifinfomsg link = { .ifi_index = (int)index,
                                  .ifi_flags = flags,
                                  .ifi_change = flags };
        netlink_begin(request, RTM_NEWLINK, 0, &link, sizeof(link));
}

int netdev_move(int nl, uint32_t index, int netns_fd, const char *name, struct err *err)
{
        struct netlink_request request;
        begin_link(&request, index, 0);
        netlink_put_u32(&request, IFLA_NET_NS_FD, (uint32_t)netns_fd);
        netlink_put_text(&request, IFLA_IFNAME, name);
        return netlink_ask(nl, &request, "move a network device", err);
}

int netdev_set_up(int nl, uint32_t index, uint32_t mtu, struct err *err)
{
        struct netlink_request request;
        begin_link(&request, index, IFF_UP);
        netlink_put_u32(&request, IFLA_MTU, mtu);
        return netlink_ask(nl, &request, "set a network device up", err);
}

static int set_link(int nl, uint32_t index, const struct netdev *wanted, struct err *err)
{
        struct netlink_request request;
        uint8_t mac[MAC_BYTES];
        int r = parse_mac(wanted->mac, mac, err);
        if (r < 0)
                return r;
        if (str_empty(wanted->name) || strlen(wanted->name) >= IFNAMSIZ)
                return err_plain(err, EINVAL, "the name is empty or too long");
        begin_link(&request, index, 0);
        netlink_put(&request, IFLA_ADDRESS, mac, sizeof(mac));
        netlink_put_u32(&request, IFLA_MTU, wanted->mtu);
        netlink_put_text(&request, IFLA_IFNAME, wanted->name);
        return netlink_ask(nl, &request, "name, MAC and MTU", err);
}

/* Nobody else can have it: whoever gave it to the first device has seen to that, so
 * version 6 needs not ask the network, which takes a second. */
static int add_address(int nl, uint32_t index, const struct netdev_address *address,
                       struct err *err)
{
        struct netlink_request request;
        struct place local, other;
        int r = parse(address->local, &local, err);
        if (r < 0)
                return r;
        struct ifaddrmsg head = { .ifa_family = (uint8_t)local.family,
                                  .ifa_prefixlen = local.length,
                                  .ifa_flags = local.family == AF_INET6 ? IFA_F_NODAD : 0,
                                  .ifa_scope = (uint8_t)address->scope,
                                  .ifa_index = index };
        netlink_begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof(head));
        netlink_put(&request, IFA_LOCAL, local.bytes, local.size);
        other = local;
        if (address->peer)
                r = parse(address->peer, &other, err);
        if (r == 0)
                netlink_put(&request, IFA_ADDRESS, other.bytes, local.size);
        if (r == 0 && address->broadcast) {
                r = parse(address->broadcast, &other, err);
                netlink_put(&request, IFA_BROADCAST, other.bytes, local.size);
        }
        return r < 0 ? r : netlink_ask(nl, &request, address->local, err);
}

static int put_place(struct netlink_request *request, int type, const char *text, int family,
                     struct err *err)
{
        struct place place;
        int r = text ? parse(text, &place, err) : 0;
        if (r < 0 || !text)
                return r;
        if (place.family != family)
                return err_plain(err, EINVAL, "'%s' is of another family", text);
        netlink_put(request, type, place.bytes, place.size);
        return 0;
}

static int add_route(int nl, uint32_t index, const struct netdev_route *route, struct err *err)
{
        struct netlink_request request;
        struct place to;
        int r = parse(route->to, &to, err);
        if (r < 0)
                return r;
        struct rtmsg head = { .rtm_family = (uint8_t)to.family,
                              .rtm_dst_len = to.length,
                              .rtm_table = RT_TABLE_MAIN,
                              .rtm_protocol = RTPROT_BOOT,
                              .rtm_scope = (uint8_t)route->scope,
                              .rtm_type = RTN_UNICAST,
                              .rtm_flags = route->onlink ? RTNH_F_ONLINK : 0 };
        netlink_begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof(head));
        if (to.length)
                netlink_put(&request, RTA_DST, to.bytes, to.size);
        netlink_put_u32(&request, RTA_OIF, index);
        if (route->metric)
                netlink_put_u32(&request, RTA_PRIORITY, route->metric);
        r = put_place(&request, RTA_GATEWAY, route->gateway, to.family, err);
        if (r == 0)
                r = put_place(&request, RTA_PREFSRC, route->source, to.family, err);
        if (r == 0 && route->mtu) {
                struct rtattr *nest = netlink_nest(&request, RTA_METRICS);
                netlink_put_u32(&request, RTAX_MTU, route->mtu);
                netlink_nest_end(&request, nest);
        }
        return r < 0 ? r : netlink_ask(nl, &request, route->to, err);
}

static int add_neighbour(int nl, uint32_t index, const struct netdev_neighbour *neighbour,
                         struct err *err)
{
        struct netlink_request request;
        struct place address;
        uint8_t mac[MAC_BYTES];
        int r = parse(neighbour->address, &address, err);
        if (r == 0)
                r = parse_mac(neighbour->mac, mac, err);
        if (r < 0)
                return r;
        struct ndmsg head = { .ndm_family = (uint8_t)address.family,
                              .ndm_ifindex = (int)index,
                              .ndm_state = NUD_PERMANENT };
        netlink_begin(&request, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof(head));
        netlink_put(&request, NDA_DST, address.bytes, address.size);
        netlink_put(&request, NDA_LLADDR, mac, sizeof(mac));
        return netlink_ask(nl, &request, neighbour->address, err);
}

/* First what is reached directly, so that the gateways of the rest can be. */
static int add_routes(int nl, uint32_t index, const struct netdev *wanted, struct err *err)
{
        int r = 0;
        for (int turn = 0; turn < 2; turn++)
                for (size_t i = 0; r == 0 && i < wanted->routes_length; i++)
                        if (!wanted->routes[i].gateway == !turn)
                                r = add_route(nl, index, &wanted->routes[i], err);
        return r < 0 ? err_wrap(err, "route") : 0;
}

static int configure(int nl, uint32_t index, const struct netdev *wanted, struct err *err)
{
        int r = set_link(nl, index, wanted, err);
        for (size_t i = 0; r == 0 && i < wanted->addresses_length; i++)
                r = add_address(nl, index, &wanted->addresses[i], err);
        if (r == 0 && wanted->up)
                r = netdev_set_up(nl, index, wanted->mtu, err);
        for (size_t i = 0; r == 0 && i < wanted->neighbours_length; i++)
                r = add_neighbour(nl, index, &wanted->neighbours[i], err);
        return r == 0 && wanted->up ? add_routes(nl, index, wanted, err) : r;
}

int netdev_configure(int nl, uint32_t index, const struct netdev *wanted, struct err *err)
{
        int r = configure(nl, index, wanted, err);
        if (r < 0)
                err_wrap(err, "network device '%s'", wanted->name ? wanted->name : "");
        return r;
}
