#include "sys/netdev.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/netlink.h"

#define MAC_BYTES          6
#define IPV6_DISABLE_INDEX 26 /* DEVCONF_DISABLE_IPV6: its header clashes with netinet/in.h */
#define ROUTES_MAX         4096

/* One more, zeroed, at the end of an array. */
static void *grow(void *array, size_t *length, size_t size)
{
        void **at = array;
        *at = xrealloc(*at, *length + 1, size);
        void *new = (char *)*at + *length *size;
        memset(new, 0, size);
        ++*length;
        return new;
}

static size_t address_bytes(int family)
{
        return family == AF_INET    ? sizeof(struct in_addr)
               : family == AF_INET6 ? sizeof(struct in6_addr)
                                    : 0;
}

/* NULL stays NULL. */
static char *address_text(int family, const void *bytes)
{
        char text[INET6_ADDRSTRLEN];
        return bytes && inet_ntop(family, bytes, text, sizeof(text)) ? xstrdup(text) : NULL;
}

static char *prefix_text(int family, const void *bytes, unsigned length)
{
        static const struct in6_addr none;
        char text[INET6_ADDRSTRLEN] = "";
        (void)inet_ntop(family, bytes ? bytes : &none, text, sizeof(text));
        return xasprintf("%s/%u", text, length);
}

static char *mac_text(const uint8_t *b)
{
        return xasprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
}

static struct netdev *find(const struct netdev_list *list, uint32_t index)
{
        for (size_t i = 0; i < list->length; i++)
                if (list->devices[i].index == index)
                        return &list->devices[i];
        return NULL;
}

static bool ipv6_is_off(const struct nlmsghdr *message)
{
        size_t size;
        const void *families = netlink_find(message, sizeof(struct ifinfomsg), IFLA_AF_SPEC, 0,
                                            &size);
        const void *own = families ? netlink_find_in(families, size, AF_INET6, 0, &size) : NULL;
        const int32_t *values = own ? netlink_find_in(own, size, IFLA_INET6_CONF,
                                                      sizeof(int32_t) * (IPV6_DISABLE_INDEX + 1),
                                                      NULL)
                                    : NULL;
        return values && values[IPV6_DISABLE_INDEX];
}

static int take_link(const struct nlmsghdr *message, void *arg, struct err *err)
{
        struct netdev_list *list = arg;
        const struct ifinfomsg *link = NLMSG_DATA(message);
        size_t mac_size = 0;
        (void)err;
        const char *name = netlink_find(message, sizeof(*link), IFLA_IFNAME, 1, NULL);
        const uint32_t *mtu = netlink_find(message, sizeof(*link), IFLA_MTU, sizeof(*mtu), NULL);
        const uint8_t *mac = netlink_find(message, sizeof(*link), IFLA_ADDRESS, MAC_BYTES,
                                          &mac_size);
        if (link->ifi_type != ARPHRD_ETHER || link->ifi_flags & IFF_LOOPBACK || !name || !mtu ||
            !mac || mac_size != MAC_BYTES)
                return 0;
        struct netdev *device = grow(&list->devices, &list->length, sizeof(*device));
        *device = (struct netdev){ .index = (uint32_t)link->ifi_index,
                                   .name = xstrdup(name),
                                   .mac = mac_text(mac),
                                   .mtu = *mtu,
                                   .up = link->ifi_flags & IFF_UP,
                                   .no_ipv6 = ipv6_is_off(message) };
        return 0;
}

/* IFA_ADDRESS is the other end's where there is one, and else says the same as IFA_LOCAL,
 * which only version 4 always has. */
static int take_address(const struct nlmsghdr *message, void *arg, struct err *err)
{
        const struct ifaddrmsg *head = NLMSG_DATA(message);
        struct netdev *device = find(arg, head->ifa_index);
        size_t size = address_bytes(head->ifa_family);
        (void)err;
        const uint32_t *long_flags = netlink_find(message, sizeof(*head), IFA_FLAGS,
                                                  sizeof(*long_flags), NULL);
        uint32_t flags = long_flags ? *long_flags : head->ifa_flags;
        const void *address = size ? netlink_find(message, sizeof(*head), IFA_ADDRESS, size, NULL)
                                   : NULL;
        const void *local = size ? netlink_find(message, sizeof(*head), IFA_LOCAL, size, NULL)
                                 : NULL;
        if (!device || !address || !(flags & IFA_F_PERMANENT))
                return 0;
        struct netdev_address *new = grow(&device->addresses, &device->addresses_length,
                                          sizeof(*new));
        new->local = prefix_text(head->ifa_family, local ? local : address, head->ifa_prefixlen);
        if (local && memcmp(local, address, size) != 0)
                new->peer = address_text(head->ifa_family, address);
        new->broadcast = address_text(
                head->ifa_family, netlink_find(message, sizeof(*head), IFA_BROADCAST, size, NULL));
        new->scope = head->ifa_scope;
        return 0;
}

static uint32_t route_mtu(const struct nlmsghdr *message)
{
        size_t size;
        const void *metrics = netlink_find(message, sizeof(struct rtmsg), RTA_METRICS, 0, &size);
        const uint32_t *mtu = metrics ? netlink_find_in(metrics, size, RTAX_MTU, sizeof(*mtu), NULL)
                                      : NULL;
        return mtu ? *mtu : 0;
}

static int take_route(const struct nlmsghdr *message, void *arg, struct err *err)
{
        const struct rtmsg *head = NLMSG_DATA(message);
        size_t size = address_bytes(head->rtm_family), h = sizeof(*head);
        const uint32_t *index = netlink_find(message, h, RTA_OIF, sizeof(*index), NULL);
        struct netdev *device = index ? find(arg, *index) : NULL;
        if (!device || !size || head->rtm_table != RT_TABLE_MAIN || head->rtm_type != RTN_UNICAST ||
            head->rtm_protocol == RTPROT_KERNEL || head->rtm_protocol == RTPROT_RA ||
            head->rtm_protocol == RTPROT_REDIRECT || head->rtm_flags & RTM_F_CLONED)
                return 0;
        if (device->routes_length == ROUTES_MAX)
                return err_plain(err, E2BIG, "network device '%s' has more than %d routes",
                                 device->name, ROUTES_MAX);
        const uint32_t *metric = netlink_find(message, h, RTA_PRIORITY, sizeof(*metric), NULL);
        struct netdev_route *new = grow(&device->routes, &device->routes_length, sizeof(*new));
        *new = (struct netdev_route){
                .to = prefix_text(head->rtm_family, netlink_find(message, h, RTA_DST, size, NULL),
                                  head->rtm_dst_len),
                .gateway = address_text(head->rtm_family,
                                        netlink_find(message, h, RTA_GATEWAY, size, NULL)),
                .source = address_text(head->rtm_family,
                                       netlink_find(message, h, RTA_PREFSRC, size, NULL)),
                .scope = head->rtm_scope,
                .metric = metric ? *metric : 0,
                .mtu = route_mtu(message),
                .onlink = head->rtm_flags & RTNH_F_ONLINK,
        };
        return 0;
}

static int take_neighbour(const struct nlmsghdr *message, void *arg, struct err *err)
{
        const struct ndmsg *head = NLMSG_DATA(message);
        struct netdev *device = find(arg, (uint32_t)head->ndm_ifindex);
        size_t size = address_bytes(head->ndm_family), h = sizeof(*head);
        const void *address = size ? netlink_find(message, h, NDA_DST, size, NULL) : NULL;
        const uint8_t *mac = netlink_find(message, h, NDA_LLADDR, MAC_BYTES, NULL);
        (void)err;
        if (!device || !address || !mac || !(head->ndm_state & NUD_PERMANENT))
                return 0;
        struct netdev_neighbour *new = grow(&device->neighbours, &device->neighbours_length,
                                            sizeof(*new));
        *new = (struct netdev_neighbour){ address_text(head->ndm_family, address), mac_text(mac) };
        return 0;
}

static int dump_links(int nl, struct netdev_list *list, struct err *err)
{
        struct netlink_request request;
        netlink_begin(&request, RTM_GETLINK, 0, &(struct ifinfomsg){ 0 }, sizeof(struct ifinfomsg));
        return netlink_dump(nl, &request, take_link, list, "list network devices", err);
}

static int dump_rest(int nl, struct netdev_list *list, struct err *err)
{
        struct netlink_request request;
        netlink_begin(&request, RTM_GETADDR, 0, &(struct ifaddrmsg){ 0 }, sizeof(struct ifaddrmsg));
        int r = netlink_dump(nl, &request, take_address, list, "list addresses", err);
        netlink_begin(&request, RTM_GETROUTE, 0, &(struct rtmsg){ 0 }, sizeof(struct rtmsg));
        if (r == 0)
                r = netlink_dump(nl, &request, take_route, list, "list routes", err);
        netlink_begin(&request, RTM_GETNEIGH, 0, &(struct ndmsg){ 0 }, sizeof(struct ndmsg));
        if (r == 0)
                r = netlink_dump(nl, &request, take_neighbour, list, "list neighbours", err);
        return r;
}

int netdev_read(int nl, struct netdev_list *ret, struct err *err)
{
        struct netdev_list list = { 0 };
        int r = dump_links(nl, &list, err);
        if (r == 0 && list.length)
                r = dump_rest(nl, &list, err);
        if (r < 0)
                netdev_list_finish(&list);
        else
                *ret = list;
        return r;
}

void netdev_finish(struct netdev *device)
{
        for (size_t i = 0; i < device->addresses_length; i++) {
                free(device->addresses[i].local);
                free(device->addresses[i].peer);
                free(device->addresses[i].broadcast);
        }
        for (size_t i = 0; i < device->routes_length; i++) {
                free(device->routes[i].to);
                free(device->routes[i].gateway);
                free(device->routes[i].source);
        }
        for (size_t i = 0; i < device->neighbours_length; i++) {
                free(device->neighbours[i].address);
                free(device->neighbours[i].mac);
        }
        free(device->addresses);
        free(device->routes);
        free(device->neighbours);
        free(device->name);
        free(device->mac);
        *device = (struct netdev){ 0 };
}

void netdev_list_finish(struct netdev_list *list)
{
        for (size_t i = 0; i < list->length; i++)
                netdev_finish(&list->devices[i]);
        free(list->devices);
        *list = (struct netdev_list){ 0 };
}
