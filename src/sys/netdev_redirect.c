/* The queueing discipline "ingress" with one filter "u32" that takes every packet, whose
 * action "mirred" sends it elsewhere. (The filter "matchall" would do as well, but fewer
 * kernels have it.) */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/tc_act/tc_mirred.h>

#include "sys/netdev.h"
#include "sys/netlink.h"

#define INGRESS_HANDLE TC_H_MAKE(TC_H_INGRESS, 0)
#define PRIORITY       1

static struct tcmsg qdisc_of(uint32_t index)
{
        return (struct tcmsg){ .tcm_family = AF_UNSPEC,
                               .tcm_ifindex = (int)index,
                               .tcm_handle = INGRESS_HANDLE,
                               .tcm_parent = TC_H_INGRESS };
}

static void put_action(struct netlink_request *request, uint32_t to)
{
        const struct tc_mirred mirred = { .action = TC_ACT_STOLEN,
                                          .eaction = TCA_EGRESS_REDIR,
                                          .ifindex = to };
        struct rtattr *actions = netlink_nest(request, TCA_U32_ACT);
        struct rtattr *first = netlink_nest(request, 1);
        netlink_put_text(request, TCA_ACT_KIND, "mirred");
        struct rtattr *options = netlink_nest(request, TCA_ACT_OPTIONS);
        netlink_put(request, TCA_MIRRED_PARMS, &mirred, sizeof(mirred));
        netlink_nest_end(request, options);
        netlink_nest_end(request, first);
        netlink_nest_end(request, actions);
}

static int add_filter(int nl, uint32_t from, uint32_t to, struct err *err)
{
        union {
                struct tc_u32_sel head;
                char bytes[sizeof(struct tc_u32_sel) + sizeof(struct tc_u32_key)];
        } every = { 0 }; /* with one key that has no bits to compare */
        every.head.flags = TC_U32_TERMINAL;
        every.head.nkeys = 1;
        struct tcmsg filter = { .tcm_family = AF_UNSPEC,
                                .tcm_ifindex = (int)from,
                                .tcm_parent = INGRESS_HANDLE,
                                .tcm_info = TC_H_MAKE(PRIORITY << 16, htons(ETH_P_ALL)) };
        struct netlink_request request;
        netlink_begin(&request, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &filter, sizeof(filter));
        netlink_put_text(&request, TCA_KIND, "u32");
        struct rtattr *options = netlink_nest(&request, TCA_OPTIONS);
        netlink_put(&request, TCA_U32_SEL, &every, sizeof(every));
        put_action(&request, to);
        netlink_nest_end(&request, options);
        return netlink_ask(nl, &request, "redirect what a network device receives", err);
}

int netdev_redirect(int nl, uint32_t from, uint32_t to, struct err *err)
{
        const struct tcmsg qdisc = qdisc_of(from);
        struct netlink_request request;
        netlink_begin(&request, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &qdisc, sizeof(qdisc));
        netlink_put_text(&request, TCA_KIND, "ingress");
        int r = netlink_ask(nl, &request, "queueing discipline 'ingress'", err);
        if (r == 0) {
                r = add_filter(nl, from, to, err);
                if (r < 0)
                        (void)netdev_redirect_remove(nl, from, NULL);
        }
        return r;
}

int netdev_redirect_remove(int nl, uint32_t from, struct err *err)
{
        const struct tcmsg qdisc = qdisc_of(from);
        struct netlink_request request;
        netlink_begin(&request, RTM_DELQDISC, 0, &qdisc, sizeof(qdisc));
        int r = netlink_ask(nl, &request, "", NULL);
        if (r == 0 || r == -ENOENT || r == -EINVAL || r == -ENODEV)
                return 0;
        return err_set(err, -r, "remove the queueing discipline 'ingress'");
}
