#include "guest/network.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/message.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/namespace.h"
#include "sys/netlink.h"

#define TUN           "/dev/net/tun"
#define TAP_PREFIX    "isle-tap"
#define FILE_SIZE_MAX ((size_t)4 << 20)

static const struct json_field card_fields[] = {
        JSON_FIELD(struct network_card, "mac", JSON_STRING, mac, JSON_REQUIRED),
        JSON_FIELD(struct network_card, "tap", JSON_UINT, tap, 0),
        JSON_FIELD_STRUCT(struct network_card, "netdev", device, &agent_netdev_shape,
                          JSON_REQUIRED),
};
static const struct json_shape card_shape = JSON_SHAPE("card", struct network_card, card_fields);

static const struct json_field network_fields[] = {
        JSON_FIELD(struct network, "device", JSON_UINT, device, 0),
        JSON_FIELD(struct network, "inode", JSON_UINT, inode, 0),
        JSON_FIELD_ARRAY(struct network, "cards", cards, cards_length, &card_shape, 0),
};
static const struct json_shape network_shape = JSON_SHAPE("network", struct network,
                                                          network_fields);

void network_finish(struct network *network)
{
        json_free(&network_shape, network);
}

int network_read(int directory_fd, struct network *ret, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        struct err own = { 0 };
        *ret = (struct network){ 0 };
        int r = file_read(directory_fd, NETWORK_FILE, FILE_SIZE_MAX, &text, &size, &own);
        if (r == -ENOENT)
                return 0;
        if (r == 0)
                r = json_decode_text(&network_shape, text, size, ret, &own);
        return r < 0 ? err_plain(err, -r, NETWORK_FILE ": %s", err_text(&own)) : 0;
}

static int write_file(int directory_fd, const struct network *network, struct err *err)
{
        auto_free char *text = json_encode_text(&network_shape, network, false);
        return file_replace(directory_fd, NETWORK_FILE, text, strlen(text), 0600, false, err);
}

/* Taps of ours are other machines'. */
static int read_devices(int nl, struct netdev_list *ret, struct err *err)
{
        int r = netdev_read(nl, ret, err);
        if (r < 0)
                return r;
        size_t kept = 0;
        for (size_t i = 0; i < ret->length; i++) {
                struct netdev *device = &ret->devices[i];
                if (str_starts(device->name, TAP_PREFIX))
                        netdev_finish(device);
                else
                        ret->devices[kept++] = *device;
        }
        ret->length = kept; /* what was moved is nobody's but its new place's */
        return 0;
}

/* --- taps --- */

struct tap {
        int fd;
        uint32_t index;
};

/* Version 6 is off at the tap, lest the namespace talks to the guest by it. */
static int open_tap(void *arg, struct err *err)
{
        struct tap *tap = arg;
        struct ifreq request = { .ifr_name = TAP_PREFIX "%d",
                                 .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
        auto_fd fd = open(TUN, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open " TUN ", which connects the virtual machine");
        if (ioctl(fd, TUNSETIFF, &request) < 0)
                return err_set(err, errno, "make a tap");
        auto_free char *path = xasprintf("/proc/sys/net/ipv6/conf/%s/disable_ipv6",
                                         request.ifr_name);
        (void)file_put(AT_FDCWD, path, "1", NULL);
        tap->index = if_nametoindex(request.ifr_name);
        tap->fd = take_fd(fd);
        return 0;
}

static void add_card(struct network *network, uint32_t tap)
{
        network->cards = xrealloc(network->cards, network->cards_length + 1,
                                  sizeof(*network->cards));
        network->cards[network->cards_length] = (struct network_card){
                .mac = xasprintf("02:00:00:00:00:%02zx", network->cards_length + 1),
                .tap = tap,
        };
        network->cards_length++;
}

static int count_cards(int netns_fd, bool spare, size_t *ret, struct err *err)
{
        auto_netdev_list list = { 0 };
        auto_fd nl = -1;
        int r = netlink_open_at(netns_fd, &nl, err);
        if (r == 0)
                r = read_devices(nl, &list, err);
        if (r == 0 && list.length > NETWORK_CARDS_MAX)
                r = err_plain(err, E2BIG, "%zu network devices: a virtual machine takes %d",
                              list.length, NETWORK_CARDS_MAX);
        if (r == 0)
                *ret = list.length == 0 && spare ? NETWORK_SPARE_CARDS : list.length;
        return r;
}

int network_create(int directory_fd, int netns_fd, bool spare, int ret_fds[NETWORK_CARDS_MAX],
                   size_t *ret_length, struct err *err)
{
        auto_network network = { 0 };
        struct stat st;
        size_t length = 0;
        *ret_length = 0;
        int r = count_cards(netns_fd, spare, &length, err);
        if (r < 0 || length == 0)
                return r;
        if (fstat(netns_fd, &st) < 0)
                return err_set(err, errno, "network namespace");
        network.device = st.st_dev;
        network.inode = st.st_ino;
        while (r == 0 && *ret_length < length) {
                struct tap tap;
                r = namespace_visit(netns_fd, NAMESPACE_NETWORK, open_tap, &tap, err);
                if (r < 0)
                        break;
                add_card(&network, tap.index);
                ret_fds[(*ret_length)++] = tap.fd;
        }
        if (r == 0)
                r = write_file(directory_fd, &network, err);
        while (r < 0 && *ret_length > 0)
                close_fd(&ret_fds[--*ret_length]);
        return r;
}

/* --- devices and cards --- */

static void set_device(struct network_card *card, struct netdev *device)
{
        netdev_finish(&card->device);
        if (!device)
                return;
        card->device = *device;
        *device = (struct netdev){ 0 };
}

static struct network_card *find_card(struct network *network, uint32_t index)
{
        for (size_t i = 0; i < network->cards_length; i++)
                if (network->cards[i].device.index == index)
                        return &network->cards[i];
        return NULL;
}

static bool has_device(const struct netdev_list *list, uint32_t index)
{
        for (size_t i = 0; i < list->length; i++)
                if (list->devices[i].index == index)
                        return true;
        return false;
}

/* Those known keep their cards; `fresh` says which cards had none. */
static int assign(struct network *network, struct netdev_list *list, bool *fresh, struct err *err)
{
        for (size_t i = 0; i < network->cards_length; i++)
                if (!has_device(list, network->cards[i].device.index))
                        set_device(&network->cards[i], NULL);
        for (size_t i = 0; i < list->length; i++) {
                struct network_card *card = find_card(network, list->devices[i].index);
                bool known = card;
                if (!card)
                        card = find_card(network, 0);
                if (!card)
                        return err_plain(err, ENOSPC,
                                         "network device '%s' came when the virtual machine was "
                                         "made, which has %zu network cards; what it shall have "
                                         "is to be there at its creation",
                                         list->devices[i].name, network->cards_length);
                fresh[card - network->cards] = !known;
                set_device(card, &list->devices[i]);
        }
        return 0;
}

static int join(int nl, const struct network_card *card, bool fresh, struct err *err)
{
        struct err own = { 0 };
        int r = netdev_set_up(nl, card->tap, card->device.mtu, err);
        if (r < 0)
                return r;
        r = netdev_redirect(nl, card->device.index, card->tap, &own);
        if (r == -EEXIST && fresh)
                return err_plain(err, EEXIST,
                                 "network device '%s' is used by another virtual machine, or has "
                                 "an ingress queueing discipline",
                                 card->device.name);
        if (r == 0 || r == -EEXIST) {
                r = netdev_redirect(nl, card->tap, card->device.index, &own);
                if (r == 0 || r == -EEXIST)
                        return 0;
                if (fresh)
                        (void)netdev_redirect_remove(nl, card->device.index, NULL);
        }
        return err_plain(err, -r, "network device '%s': %s", card->device.name, err_text(&own));
}

static int join_all(int directory_fd, int nl, struct network *network, const bool *fresh,
                    struct err *err)
{
        for (size_t i = 0; i < network->cards_length; i++) {
                struct network_card *card = &network->cards[i];
                int r = card->device.index ? join(nl, card, fresh[i], err) : 0;
                if (r == 0)
                        continue;
                for (; i < network->cards_length; i++) /* what is not ours is not ours to leave */
                        if (fresh[i])
                                set_device(&network->cards[i], NULL);
                (void)write_file(directory_fd, network, NULL);
                return r;
        }
        return 0;
}

int network_join(int directory_fd, int netns_fd, struct err *err)
{
        bool fresh[NETWORK_CARDS_MAX] = { 0 };
        auto_network network = { 0 };
        auto_netdev_list list = { 0 };
        auto_fd nl = -1;
        int r = network_read(directory_fd, &network, err);
        if (r < 0 || network.cards_length == 0)
                return r;
        if (network.cards_length > NETWORK_CARDS_MAX)
                return err_plain(err, E2BIG, NETWORK_FILE ": %zu cards", network.cards_length);
        r = netlink_open_at(netns_fd, &nl, err);
        if (r == 0)
                r = read_devices(nl, &list, err);
        if (r == 0)
                r = assign(&network, &list, fresh, err);
        if (r == 0)
                r = write_file(directory_fd, &network, err);
        return r == 0 ? join_all(directory_fd, nl, &network, fresh, err) : r;
}

int network_leave(const struct network *network, int netns_fd, struct err *err)
{
        auto_fd nl = -1;
        struct stat st;
        if (network->cards_length == 0)
                return 0;
        if (fstat(netns_fd, &st) < 0)
                return err_set(err, errno, "network namespace");
        if (st.st_dev != network->device || st.st_ino != network->inode)
                return 0;
        int r = netlink_open_at(netns_fd, &nl, err);
        for (size_t i = 0; r == 0 && i < network->cards_length; i++)
                if (network->cards[i].device.index)
                        r = netdev_redirect_remove(nl, network->cards[i].device.index, err);
        return r;
}
