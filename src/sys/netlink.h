/* rtnetlink, spoken by hand: requests, the kernel's verdict, and dumps.
 *
 * A socket belongs to the network namespace that its maker was in, and stays there: who
 * works on another namespace opens one there and needs not be there for the rest
 * (netlink_open_at). A request is built in the caller's memory; what does not fit is a mistake
 * of the program and ends it. The kernel's answers are trusted, but their lengths are checked.
 * Source: netlink(7), rtnetlink(7), linux/rtnetlink.h. */
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define NETLINK_REQUEST_BYTES 1024

struct netlink_request {
        union {
                struct nlmsghdr header;
                char bytes[NETLINK_REQUEST_BYTES];
        };
};

/* `head` is the family's own header: struct ifinfomsg, ifaddrmsg, rtmsg … */
void netlink_begin(struct netlink_request *request, int type, int flags, const void *head,
                   size_t size);
void netlink_put(struct netlink_request *request, int type, const void *data, size_t size);
void netlink_put_u32(struct netlink_request *request, int type, uint32_t value);
void netlink_put_text(struct netlink_request *request, int type, const char *text);
/* What is put between the two is nested in an attribute of this type. */
struct rtattr *netlink_nest(struct netlink_request *request, int type);
void netlink_nest_end(struct netlink_request *request, struct rtattr *nest);

/* In the caller's namespace, or in that of `netns_fd`: the caller visits it meanwhile, so
 * no other thread may rely on where it is. */
int netlink_open(int *ret_fd, struct err *err);
int netlink_open_at(int netns_fd, int *ret_fd, struct err *err);

/* Sends it and waits for the verdict; `what` begins the error. */
int netlink_ask(int fd, struct netlink_request *request, const char *what, struct err *err);
/* Calls `each` with every message of the answer, until it returns less than 0. */
typedef int netlink_each(const struct nlmsghdr *message, void *arg, struct err *err);
int netlink_dump(int fd, struct netlink_request *request, netlink_each *each, void *arg,
                 const char *what, struct err *err);

/* The attribute in a message whose family's header has `head_size` bytes, or nested in
 * another; NULL where there is none, or one with less than `size` bytes of data. */
const void *netlink_find(const struct nlmsghdr *message, size_t head_size, int type, size_t size,
                         size_t *ret_size);
const void *netlink_find_in(const void *data, size_t data_size, int type, size_t size,
                            size_t *ret_size);

/* Sets the loopback of the calling process's network namespace up. */
int netlink_loopback_up(struct err *err);

/* Moves interface `name` of the caller's network namespace to the one of
 * `netns_fd`, there called `new_name` (NULL keeps it). */
int netlink_move_link(const char *name, int netns_fd, const char *new_name, struct err *err);
