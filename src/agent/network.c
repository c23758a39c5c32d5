#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/namespace.h"
#include "sys/netdev.h"
#include "sys/netlink.h"

/* What is there of the machine's cards has the MAC addresses that the machine gave them. */
static int find_card(int nl, const char *mac, uint32_t *ret_index, struct err *err)
{
        auto_netdev_list list = { 0 };
        int r = netdev_read(nl, &list, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < list.length; i++)
                if (strcasecmp(list.devices[i].mac, mac) == 0) {
                        *ret_index = list.devices[i].index;
                        return 0;
                }
        return err_plain(err, ENODEV, "the machine has no network card %s", mac);
}

/* The files of /proc/sys/net are those of whoever opens them. */
static int switch_ipv6_off(void *arg, struct err *err)
{
        auto_free char *path = xasprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6",
                                         (const char *)arg);
        return file_put(AT_FDCWD, path, "1", err);
}

static int give_card(int here, int there, int netns_fd, const struct agent_card *card,
                     struct err *err)
{
        char passing[IFNAMSIZ]; /* nobody else there is called so */
        uint32_t index;
        int r = find_card(here, card->mac, &index, err);
        if (r == 0)
                snprintf(passing, sizeof(passing), "isle-card%u", index % 100000);
        if (r == 0)
                r = netdev_move(here, index, netns_fd, passing, err);
        if (r == 0)
                r = find_card(there, card->mac, &index, err);
        if (r == 0 && card->device.no_ipv6)
                r = namespace_visit(netns_fd, NAMESPACE_NETWORK, switch_ipv6_off, passing, err);
        return r == 0 ? netdev_configure(there, index, &card->device, err) : r;
}

int agent_give_cards(const struct agent_request *request, pid_t pid, struct err *err)
{
        char path[48];
        auto_fd here = -1, there = -1, netns_fd = -1;
        snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
        int r = namespace_open(path, NAMESPACE_NETWORK, &netns_fd, err);
        if (r == 0)
                r = netlink_open(&here, err);
        if (r == 0)
                r = netlink_open_at(netns_fd, &there, err);
        for (size_t i = 0; r == 0 && i < request->cards_length; i++)
                r = give_card(here, there, netns_fd, &request->cards[i], err);
        return r;
}
