#include "sys/netlink.h"

#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/namespace.h"

#define LOOPBACK_INDEX 1     /* the first device of every network namespace */
#define ANSWER_BYTES   32768 /* what the kernel puts into one piece of a dump at most */

void netlink_begin(struct netlink_request *request, int type, int flags, const void *head,
                   size_t size)
{
        memset(request, 0, sizeof(*request));
        request->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
        request->header.nlmsg_type = (uint16_t)type;
        request->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
        memcpy(NLMSG_DATA(&request->header), head, size);
}

void netlink_put(struct netlink_request *request, int type, const void *data, size_t size)
{
        size_t at = NLMSG_ALIGN(request->header.nlmsg_len);
        assert(at + RTA_SPACE(size) <= sizeof(*request));
        struct rtattr *attribute = (struct rtattr *)(request->bytes + at);
        attribute->rta_type = (uint16_t)type;
        attribute->rta_len = (uint16_t)RTA_LENGTH(size);
        if (size)
                memcpy(RTA_DATA(attribute), data, size);
        request->header.nlmsg_len = (uint32_t)(at + RTA_ALIGN(attribute->rta_len));
}

void netlink_put_u32(struct netlink_request *request, int type, uint32_t value)
{
        netlink_put(request, type, &value, sizeof(value));
}

void netlink_put_text(struct netlink_request *request, int type, const char *text)
{
        netlink_put(request, type, text, strlen(text) + 1);
}

struct rtattr *netlink_nest(struct netlink_request *request, int type)
{
        size_t at = NLMSG_ALIGN(request->header.nlmsg_len);
        netlink_put(request, type, NULL, 0);
        return (struct rtattr *)(request->bytes + at);
}

void netlink_nest_end(struct netlink_request *request, struct rtattr *nest)
{
        nest->rta_len = (uint16_t)(request->bytes + request->header.nlmsg_len - (char *)nest);
}

int netlink_open(int *ret_fd, struct err *err)
{
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (fd < 0)
                return err_set(err, errno, "netlink");
        *ret_fd = fd;
        return 0;
}

static int open_here(void *arg, struct err *err)
{
        return netlink_open(arg, err);
}

int netlink_open_at(int netns_fd, int *ret_fd, struct err *err)
{
        return namespace_visit(netns_fd, NAMESPACE_NETWORK, open_here, ret_fd, err);
}

static int send_request(int fd, struct netlink_request *request, const char *what, struct err *err)
{
        if (send(fd, request, request->header.nlmsg_len, 0) < 0)
                return err_set(err, errno, "%s", what);
        return 0;
}

static int verdict(const struct nlmsghdr *message, const char *what, struct err *err)
{
        const struct nlmsgerr *said = NLMSG_DATA(message);
        if (message->nlmsg_len < NLMSG_LENGTH(sizeof(*said)))
                return err_plain(err, EPROTO, "%s: half an answer from the kernel", what);
        return said->error ? err_set(err, -said->error, "%s", what) : 0;
}

int netlink_ask(int fd, struct netlink_request *request, const char *what, struct err *err)
{
        union {
                struct nlmsghdr header;
                char bytes[NETLINK_REQUEST_BYTES + 256]; /* it quotes a request that failed */
        } answer;
        request->header.nlmsg_flags |= NLM_F_ACK;
        int r = send_request(fd, request, what, err);
        if (r < 0)
                return r;
        ssize_t n = recv(fd, &answer, sizeof(answer), 0);
        if (n < 0)
                return err_set(err, errno, "%s", what);
        if (!NLMSG_OK(&answer.header, (size_t)n) || answer.header.nlmsg_type != NLMSG_ERROR)
                return err_plain(err, EPROTO, "%s: unexpected answer from the kernel", what);
        return verdict(&answer.header, what, err);
}

int netlink_dump(int fd, struct netlink_request *request, netlink_each *each, void *arg,
                 const char *what, struct err *err)
{
        auto_free char *answer = xcalloc(1, ANSWER_BYTES);
        int result = 0;
        request->header.nlmsg_flags |= NLM_F_DUMP;
        int r = send_request(fd, request, what, err);
        while (r == 0) {
                ssize_t n = recv(fd, answer, ANSWER_BYTES, 0);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_set(err, errno, "%s", what);
                size_t left = (size_t)n;
                for (struct nlmsghdr *m = (struct nlmsghdr *)answer; NLMSG_OK(m, left);
                     m = NLMSG_NEXT(m, left)) {
                        if (m->nlmsg_type == NLMSG_DONE)
                                return result;
                        if (m->nlmsg_type == NLMSG_ERROR)
                                return verdict(m, what, err);
                        if (result == 0) /* the rest is read, so that the next answer is found */
                                result = each(m, arg, err);
                }
        }
        return r;
}

const void *netlink_find_in(const void *data, size_t data_size, int type, size_t size,
                            size_t *ret_size)
{
        size_t left = data_size;
        for (const struct rtattr *a = data; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
                if ((a->rta_type & NLA_TYPE_MASK) != type)
                        continue;
                if (RTA_PAYLOAD(a) < size)
                        return NULL;
                if (ret_size)
                        *ret_size = RTA_PAYLOAD(a);
                return RTA_DATA(a);
        }
        return NULL;
}

const void *netlink_find(const struct nlmsghdr *message, size_t head_size, int type, size_t size,
                         size_t *ret_size)
{
        size_t head = NLMSG_SPACE(head_size);
        if (message->nlmsg_len < head)
                return NULL;
        return netlink_find_in((const char *)message + head, message->nlmsg_len - head, type, size,
                               ret_size);
}

static int ask_once(struct netlink_request *request, const char *what, struct err *err)
{
        auto_fd fd = -1;
        int r = netlink_open(&fd, err);
        return r < 0 ? err_wrap(err, "%s", what) : netlink_ask(fd, request, what, err);
}

int netlink_loopback_up(struct err *err)
{
        struct ifinfomsg link = { .ifi_index = LOOPBACK_INDEX,
                                  .ifi_flags = IFF_UP,
                                  .ifi_change = IFF_UP };
        struct netlink_request request;
        netlink_begin(&request, RTM_NEWLINK, 0, &link, sizeof(link));
        return ask_once(&request, "set the loopback up", err);
}

int netlink_move_link(const char *name, int netns_fd, const char *new_name, struct err *err)
{
        struct ifinfomsg link = { .ifi_index = (int)if_nametoindex(name) };
        struct netlink_request request;
        if (link.ifi_index == 0)
                return err_set(err, errno, "network device '%s'", name);
        netlink_begin(&request, RTM_NEWLINK, 0, &link, sizeof(link));
        netlink_put_u32(&request, IFLA_NET_NS_FD, (uint32_t)netns_fd);
        if (new_name && strlen(new_name) >= IFNAMSIZ)
                return err_plain(err, EINVAL, "network device name '%s' is too long", new_name);
        if (new_name)
                netlink_put_text(&request, IFLA_IFNAME, new_name);
        return ask_once(&request, name, err);
}
