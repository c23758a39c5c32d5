#include "sys/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"

#define LOOPBACK_INDEX 1 /* the first device of every network namespace */

struct link_request {
        struct nlmsghdr header;
        struct ifinfomsg link;
        char attributes[64];
};

static void append_attribute(struct link_request *request, unsigned short type, const void *data,
                             size_t size)
{
        struct rtattr *attribute = (struct rtattr *)((char *)request +
                                                     NLMSG_ALIGN(request->header.nlmsg_len));
        attribute->rta_type = type;
        attribute->rta_len = (unsigned short)RTA_LENGTH(size);
        memcpy(RTA_DATA(attribute), data, size);
        request->header.nlmsg_len = (uint32_t)(NLMSG_ALIGN(request->header.nlmsg_len) +
                                               RTA_ALIGN(attribute->rta_len));
}

/* Sends one request and reads the kernel's verdict. */
static int ask(struct link_request *request, struct err *err, const char *what)
{
        struct {
                struct nlmsghdr header;
                struct nlmsgerr verdict;
                char rest[256];
        } answer;
        auto_fd fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (fd < 0)
                return err_set(err, errno, "%s: netlink", what);
        if (send(fd, request, request->header.nlmsg_len, 0) < 0)
                return err_set(err, errno, "%s", what);
        ssize_t n = recv(fd, &answer, sizeof(answer), 0);
        if (n < 0)
                return err_set(err, errno, "%s", what);
        if ((size_t)n < NLMSG_LENGTH(sizeof(answer.verdict)) ||
            answer.header.nlmsg_type != NLMSG_ERROR)
                return err_plain(err, EPROTO, "%s: unexpected answer from the kernel", what);
        if (answer.verdict.error)
                return err_set(err, -answer.verdict.error, "%s", what);
        return 0;
}

int netlink_loopback_up(struct err *err)
{
        struct link_request request = {
                .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
                            .nlmsg_type = RTM_NEWLINK,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
                .link = { .ifi_index = LOOPBACK_INDEX, .ifi_flags = IFF_UP, .ifi_change = IFF_UP },
        };
        return ask(&request, err, "set the loopback up");
}

int netlink_move_link(const char *name, int netns_fd, const char *new_name, struct err *err)
{
        unsigned index = if_nametoindex(name);
        if (index == 0)
                return err_set(err, errno, "network device '%s'", name);
        struct link_request request = {
                .header = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
                            .nlmsg_type = RTM_NEWLINK,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
                .link = { .ifi_index = (int)index },
        };
        append_attribute(&request, IFLA_NET_NS_FD, &netns_fd, sizeof(netns_fd));
        if (new_name) {
                size_t size = strlen(new_name) + 1;
                if (size > IFNAMSIZ)
                        return err_plain(err, EINVAL, "network device name '%s' is too long",
                                         new_name);
                append_attribute(&request, IFLA_IFNAME, new_name, size);
        }
        return ask(&request, err, name);
}
