/* What each device has in a snapshot: saved in one machine, it goes on in another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "loop/loop.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/tap.h"
#include "vmm/virtio/tests/driver.h"
#include "vmm/virtio/vsock.h"
#include "vmm/virtio/vsock_peers.h"

#define DATA 0x10000

/* Sends what is saved of `from` to a device that must not take it. */
static void is_refused(struct unit *from, struct unit *to, const char *why)
{
        struct err err = { 0 };
        struct state_writer w;
        assert_int_equal(device_save(from, &w, &err), 0);
        assert_true(device_load(to, w.buf.data, w.buf.size, &err) < 0);
        if (!strstr(err_text(&err), why))
                fail_msg("\"%s\" does not say \"%s\"", err_text(&err), why);
        state_writer_finish(&w);
}

/* ---- disks ---- */

/* A new file of this size, which its descriptor alone keeps. */
static int make_image(off_t size, char ret_path[64])
{
        int fd = memfd_create("image", MFD_CLOEXEC);
        assert_true(fd >= 0 && ftruncate(fd, size) == 0);
        snprintf(ret_path, 64, "/proc/self/fd/%d", fd);
        return fd;
}

static void make_blk(struct unit *u, char *image)
{
        struct err err = { 0 };
        struct disk *disk = NULL;
        const struct disk_options options = { .path = image, .format = DISK_RAW };
        unit_init(u, false);
        if (disk_open(&options, &disk, &err) < 0 ||
            virtio_blk_create(&u->machine, disk, &(struct blk_options){ 0 }, &err) < 0)
                fail_msg("%s", err_text(&err));
        unit_take_device(u);
}

static void write_sector(struct unit *u, unsigned n)
{
        const struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_OUT, .sector = n };
        const struct part parts[] = { { DATA + n * 0x1000, sizeof(header), 0 },
                                      { DATA + n * 0x1000 + 0x100, 512, 0 },
                                      { DATA + n * 0x1000 + 0x800, 1, RING_WRITE } };
        memcpy(unit_at(u, parts[0].at), &header, sizeof(header));
        memset(unit_at(u, parts[1].at), 'a' + (int)n, 512);
        *unit_at(u, parts[2].at) = 0xee;
        driver_offer(u, 0, 3 * n, parts, 3);
}

static void a_disks_request_is_answered_once_by_whoever_goes_on(void **state)
{
        (void)state;
        struct unit a, b;
        char byte = 0, paths[3][64];
        auto_fd of_a = make_image(1 << 20, paths[0]), of_b = make_image(1 << 20, paths[1]);
        auto_fd larger = make_image(2 << 20, paths[2]);
        assert_true(of_a != larger); /* all three are there until the end */
        make_blk(&a, paths[0]);
        make_blk(&b, paths[1]);
        driver_begin(&a, 0);
        write_sector(&a, 0);
        driver_notify(&a, 0);
        driver_wait(&a, 0, 1);
        workers_quiesce();
        write_sector(&a, 1);
        unit_move(&a, &b); /* the notification is lost with the old machine */
        workers_release();
        driver_wait(&b, 0, 2);
        assert_int_equal(*unit_at(&b, DATA + 0x1000 + 0x800), VIRTIO_BLK_S_OK);
        assert_int_equal(pread(of_b, &byte, 1, 0), 1);
        assert_int_equal(byte, 0); /* that one was answered before */
        assert_int_equal(pread(of_b, &byte, 1, 512), 1);
        assert_int_equal(byte, 'b');
        unit_finish(&b);
        make_blk(&b, paths[2]);
        is_refused(&a, &b, "has a disk of 2048 sectors, this machine's has 4096");
        unit_finish(&a);
        unit_finish(&b);
}

/* ---- consoles ---- */

static void make_console(struct unit *u, struct loop *loop, int out_fd)
{
        struct err err = { 0 };
        unit_init(u, false);
        u->machine.loop = loop;
        assert_int_equal(virtio_console_create(&u->machine, -1, out_fd, &err), 0);
        unit_take_device(u);
}

static void leave(void *arg)
{
        loop_exit(arg, 0);
}

static void *stop_loop_when_used(void *arg)
{
        struct unit *u = arg;
        driver_wait(u, 1, 1);
        loop_post(u->machine.loop, leave, u->machine.loop);
        return NULL;
}

/* More than pipe and buffer hold: the rest is in the ring. */
#define TEXT_SIZE (96u << 10)

static void a_console_loses_nothing(void **state)
{
        (void)state;
        struct unit a, b;
        struct err err = { 0 };
        struct loop *loop;
        int stuck[2];
        auto_fd out = memfd_create("console", MFD_CLOEXEC);
        assert_int_equal(loop_create(&loop, &err), 0);
        assert_int_equal(pipe2(stuck, O_CLOEXEC | O_NONBLOCK), 0);
        make_console(&a, loop, stuck[1]); /* the loop does not run: nothing leaves the buffer */
        make_console(&b, loop, out);
        driver_begin(&a, 0);
        for (unsigned i = 0; i < TEXT_SIZE; i++)
                *unit_at(&a, DATA + i) = (uint8_t)(i % 251);
        driver_offer(&a, 1, 0, &(struct part){ DATA, TEXT_SIZE, 0 }, 1);
        driver_notify(&a, 1);
        assert_int_equal(driver_used(&a, 1), 0);
        unit_move(&a, &b);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, stop_loop_when_used, &b), 0);
        loop_run(loop);
        pthread_join(thread, NULL);
        unit_finish(&b);
        static uint8_t text[TEXT_SIZE + 1];
        assert_int_equal(pread(out, text, sizeof(text), 0), TEXT_SIZE);
        for (unsigned i = 0; i < TEXT_SIZE; i++)
                assert_int_equal(text[i], i % 251);
        unit_finish(&a);
        close(stuck[0]);
        close(stuck[1]);
        loop_destroy(loop);
}

/* ---- balloons ---- */

static void make_balloon(struct unit *u, struct balloon **ret)
{
        struct err err = { 0 };
        unit_init(u, false);
        assert_int_equal(virtio_balloon_create(&u->machine, ret, &err), 0);
        unit_take_device(u);
}

static void a_balloon_keeps_its_size_and_its_buffer(void **state)
{
        (void)state;
        struct unit a, b;
        struct balloon *in_a, *in_b;
        struct balloon_view view;
        const struct virtio_balloon_stat stat = { VIRTIO_BALLOON_S_MEMFREE, 12345 };
        const uint32_t page = 0x20, actual = 1;
        make_balloon(&a, &in_a);
        make_balloon(&b, &in_b);
        driver_begin(&a, 0);
        assert_int_equal(balloon_set_target(in_a, 0x3000), 0);
        memcpy(unit_at(&a, DATA), &page, sizeof(page));
        driver_offer(&a, 0, 0, &(struct part){ DATA, 4, 0 }, 1);
        driver_notify(&a, 0);
        driver_wait(&a, 0, 1);
        pthread_mutex_lock(&a.device->lock);
        virtio_config_write(a.device, 4, 4, actual);
        pthread_mutex_unlock(&a.device->lock);
        memcpy(unit_at(&a, DATA + 0x100), &stat, sizeof(stat));
        driver_offer(&a, 2, 0, &(struct part){ DATA + 0x100, sizeof(stat), 0 }, 1);
        driver_notify(&a, 2);
        for (workers_quiesce(); a.device->queues[2].next_available != 1; workers_quiesce()) {
                workers_release();
                sched_yield();
        }
        unit_move(&a, &b); /* while it keeps the buffer */
        workers_release();
        balloon_view(in_b, &view);
        assert_int_equal(view.target_bytes, 0x3000);
        assert_int_equal(view.actual_bytes, 0x1000);
        while (driver_used(&b, 2) != 1) /* the buffer comes back when it is asked for */
                balloon_view(in_b, &view);
        assert_int_equal(view.stats[BALLOON_FREE], 12345);
        unit_finish(&a);
        unit_finish(&b);
}

/* ---- networks: taps are socket pairs ---- */

int tap_set_offloads(int fd, unsigned flags)
{
        (void)fd, (void)flags;
        return 0;
}

int tap_attach(int fd, bool attached)
{
        (void)fd, (void)attached;
        return 0;
}

static void make_net(struct unit *u, unsigned pairs, int ends[2])
{
        struct err err = { 0 };
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
        const int fds[] = { ends[0], ends[0] };
        const struct net_options options = { .fds = fds,
                                             .pairs = pairs,
                                             .mac = { 2, 0, 0, 0, 0, 1 } };
        unit_init(u, false);
        assert_int_equal(virtio_net_create(&u->machine, &options, &err), 0);
        unit_take_device(u);
}

static void finish_net(struct unit *u, const int ends[2])
{
        unit_finish(u);
        close(ends[0]);
        close(ends[1]);
}

/* Of the control queue; `size` bytes of a command. */
static void net_command(struct unit *u, unsigned n, const void *command, uint32_t size)
{
        const struct part parts[] = { { DATA + 0x4000, size, 0 },
                                      { DATA + 0x5000, 1, RING_WRITE } };
        memcpy(unit_at(u, parts[0].at), command, size);
        *unit_at(u, parts[1].at) = 0xee;
        driver_offer(u, u->device->queues_length - 1, 2 * n, parts, 2);
        driver_notify(u, u->device->queues_length - 1);
        assert_int_equal(*unit_at(u, parts[1].at), VIRTIO_NET_OK);
}

static void a_network_keeps_address_pairs_and_the_packet_that_it_holds(void **state)
{
        (void)state;
        struct unit a, b;
        int of_a[2], of_b[2];
        char packet[312] = { 0 }, byte;
        static const uint8_t mac[] = {
                VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, 2, 0, 0, 0, 0, 9
        };
        static const uint8_t two[] = { VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, 2, 0 };
        make_net(&a, 2, of_a);
        make_net(&b, 2, of_b);
        driver_begin(&a, 0);
        net_command(&a, 0, mac, sizeof(mac));
        net_command(&a, 1, two, sizeof(two));
        memset(packet + 12, 'p', sizeof(packet) - 12);
        assert_int_equal(send(of_a[1], packet, sizeof(packet), 0), sizeof(packet));
        driver_offer(&a, 0, 0, &(struct part){ DATA, 100, RING_WRITE }, 1);
        driver_notify(&a, 0);
        while (recv(of_a[0], &byte, 1, MSG_PEEK) >= 0) /* it comes for it by itself */
                sched_yield();
        workers_quiesce();
        unit_move(&a, &b);
        workers_release();
        assert_int_equal(virtio_config_read(b.device, 0, 6), 0x090000000002);
        driver_offer(&b, 0, 1, &(struct part){ DATA + 0x1000, 300, RING_WRITE }, 1);
        driver_notify(&b, 0);
        driver_wait(&b, 0, 2);
        assert_int_equal(driver_written(&b, 0), 212);
        assert_memory_equal(unit_at(&b, DATA + 0x1000), packet + 100, 212);
        finish_net(&b, of_b);
        make_net(&b, 1, of_b);
        is_refused(&a, &b, "same options");
        finish_net(&a, of_a);
        finish_net(&b, of_b);
}

/* ---- sockets ---- */

static void make_vsock(struct unit *u, uint32_t cid, int *ret_listener, char path[64])
{
        struct err err = { 0 };
        snprintf(path, 64, "/tmp/isle-state-%d-%u", getpid(), cid);
        assert_int_equal(vsock_listen(path, ret_listener, &err), 0);
        const struct vsock_options options = { *ret_listener, path, cid };
        unit_init(u, false);
        assert_int_equal(virtio_vsock_create(&u->machine, &options, &err), 0);
        unit_take_device(u);
}

static void sockets_are_told_that_they_are_elsewhere(void **state)
{
        (void)state;
        struct unit a, b;
        int listeners[2];
        char paths[2][64];
        uint32_t event = UINT32_MAX;
        make_vsock(&a, 3, &listeners[0], paths[0]);
        make_vsock(&b, 4, &listeners[1], paths[1]);
        driver_begin(&a, 0);
        workers_quiesce();
        unit_move(&a, &b);
        workers_release();
        memcpy(unit_at(&b, DATA), &event, sizeof(event));
        driver_offer(&b, 2, 0, &(struct part){ DATA, sizeof(event), RING_WRITE }, 1);
        driver_notify(&b, 2);
        driver_wait(&b, 2, 1);
        memcpy(&event, unit_at(&b, DATA), sizeof(event));
        assert_int_equal(event, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
        assert_int_equal(driver_written(&b, 2), sizeof(event));
        assert_int_equal(virtio_config_read(b.device, 0, 8), 4);
        driver_offer(&b, 2, 1, &(struct part){ DATA, sizeof(event), RING_WRITE }, 1);
        driver_notify(&b, 2); /* once is enough */
        unit_finish(&b);
        unit_finish(&a);
        for (unsigned i = 0; i < 2; i++) {
                close(listeners[i]);
                unlink(paths[i]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_disks_request_is_answered_once_by_whoever_goes_on),
                cmocka_unit_test(a_console_loses_nothing),
                cmocka_unit_test(a_balloon_keeps_its_size_and_its_buffer),
                cmocka_unit_test(a_network_keeps_address_pairs_and_the_packet_that_it_holds),
                cmocka_unit_test(sockets_are_told_that_they_are_elsewhere),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
