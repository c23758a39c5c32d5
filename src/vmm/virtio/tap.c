#include "vmm/virtio/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"

#define DEVICE "/dev/net/tun"

static int open_queue(const char *name, bool many, int *ret_fd, struct err *err)
{
        auto_fd fd = open(DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open " DEVICE);
        struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
        strncpy(request.ifr_name, name, IFNAMSIZ - 1);
        if (many)
                request.ifr_flags |= IFF_MULTI_QUEUE;
        int r = ioctl(fd, TUNSETIFF, &request);
        if (r < 0 && errno == EINVAL && !many) { /* it was made for several queues */
                request.ifr_flags |= IFF_MULTI_QUEUE;
                r = ioctl(fd, TUNSETIFF, &request);
        }
        if (r < 0 && errno == EINVAL)
                return err_plain(err, EINVAL,
                                 "tap '%s': it exists, but is no tap%s; 'ip tuntap add mode tap%s' "
                                 "makes one",
                                 name, many ? " of several queues" : "",
                                 many ? " multi_queue" : "");
        if (r < 0)
                return err_set(err, errno, "tap '%s'", name);
        int size = sizeof(struct virtio_net_hdr_v1);
        if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
                return err_set(err, errno, "tap '%s': size of the packet header", name);
        *ret_fd = take_fd(fd);
        return 0;
}

static int set_up(const char *name, uint32_t mtu, struct err *err)
{
        struct ifreq request = { 0 };
        auto_fd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_set(err, errno, "socket");
        strncpy(request.ifr_name, name, IFNAMSIZ - 1);
        if (mtu) {
                request.ifr_mtu = (int)mtu;
                if (ioctl(fd, SIOCSIFMTU, &request) < 0)
                        return err_set(err, errno, "tap '%s': mtu %u", name, mtu);
        }
        if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
                return err_set(err, errno, "tap '%s'", name);
        if (request.ifr_flags & IFF_UP)
                return 0;
        request.ifr_flags |= IFF_UP;
        if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
                return err_set(err, errno, "tap '%s' is down and cannot be brought up", name);
        return 0;
}

int tap_open(const char *name, unsigned pairs, uint32_t mtu, int ret_fds[NET_PAIRS],
             struct err *err)
{
        int r = 0;
        unsigned opened = 0;
        for (; r == 0 && opened < pairs; opened += r == 0) {
                r = open_queue(name, pairs > 1, &ret_fds[opened], err);
                if (r == 0 && opened > 0 && tap_attach(ret_fds[opened], false) < 0)
                        r = err_set(err, errno, "tap '%s': detach queue %u", name, opened);
        }
        if (r == 0)
                r = set_up(name, mtu, err);
        while (r < 0 && opened > 0)
                close_fd(&ret_fds[--opened]);
        return r;
}

static int check_queue(int fd, const char *name, struct ifreq *ret, struct err *err)
{
        int size = 0, flags = fcntl(fd, F_GETFL);
        if (flags < 0 || !(flags & O_NONBLOCK) || ioctl(fd, TUNGETIFF, ret) < 0 ||
            ioctl(fd, TUNGETVNETHDRSZ, &size) < 0 || size != sizeof(struct virtio_net_hdr_v1) ||
            (ret->ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)) !=
                    (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
                return err_plain(err, EBADF,
                                 "network '%s': its descriptor is not of a tap with "
                                 "packet headers of %zu bytes",
                                 name, sizeof(struct virtio_net_hdr_v1));
        return 0;
}

int tap_check(const int *fds, unsigned pairs, const char *name, struct err *err)
{
        struct ifreq first = { 0 }, other = { 0 };
        int r = check_queue(fds[0], name, &first, err);
        if (r == 0 && pairs > 1 && !(first.ifr_flags & IFF_MULTI_QUEUE))
                r = err_plain(err, EBADF, "network '%s': its tap has one queue, not %u", name,
                              pairs);
        for (unsigned i = 1; r == 0 && i < pairs; i++) {
                r = check_queue(fds[i], name, &other, err);
                if (r == 0 && strncmp(first.ifr_name, other.ifr_name, IFNAMSIZ) != 0)
                        r = err_plain(err, EBADF,
                                      "network '%s': its descriptors are of two taps, '%s' and "
                                      "'%s'",
                                      name, first.ifr_name, other.ifr_name);
        }
        return r;
}

int tap_adopt(int fd, int *ret_fd, struct err *err)
{
        struct ifreq request = { 0 };
        int size = sizeof(struct virtio_net_hdr_v1);
        if (ioctl(fd, TUNGETIFF, &request) < 0)
                return err_set(err, errno, "descriptor %d is no tap", fd);
        if (!(request.ifr_flags & IFF_TAP) || !(request.ifr_flags & IFF_VNET_HDR))
                return err_plain(err, EINVAL,
                                 "descriptor %d, '%s': a tap with IFF_VNET_HDR is needed", fd,
                                 request.ifr_name);
        if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
                return err_set(err, errno, "tap '%s': size of the packet header", request.ifr_name);
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                return err_set(err, errno, "tap '%s'", request.ifr_name);
        *ret_fd = fd;
        return 0;
}

int tap_set_offloads(int fd, unsigned flags)
{
        return ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags) < 0 ? -errno : 0;
}

int tap_attach(int fd, bool attached)
{
        struct ifreq request = { .ifr_flags = attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE };
        return ioctl(fd, TUNSETQUEUE, &request) < 0 ? -errno : 0;
}
