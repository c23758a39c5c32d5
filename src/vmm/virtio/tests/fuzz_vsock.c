/* Packets of a guest with whom one program of the host is connected, which sends, and
 * another listens at port 7. */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/virtio/vsock.c"

#include "vmm/virtio/tests/fuzz_device.h"

#define CID 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[] = "/tmp/fuzz-vsock-XXXXXX";
static char path[64], listener_path[80];

static void clean(void)
{
        unlink(path);
        unlink(listener_path);
        rmdir(directory);
}

static int unix_socket(const char *at, bool listens)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        memcpy(address.sun_path, at, strlen(at));
        int r = listens ? bind(fd, (struct sockaddr *)&address, sizeof(address))
                        : connect(fd, (struct sockaddr *)&address, sizeof(address));
        if (fd < 0 || r < 0 || (listens && listen(fd, 64) < 0))
                abort();
        return fd;
}

static void setup(struct vsock *v, int *ret_listener)
{
        struct err err = { 0 };
        if (!mkdtemp(directory))
                abort();
        snprintf(path, sizeof(path), "%s/v", directory);
        snprintf(listener_path, sizeof(listener_path), "%s_7", path);
        atexit(clean);
        virtio_init(&v->virtio, fuzz_machine_get(), VIRTIO_VSOCK, "virtio-vsock", &ops, 0);
        for (unsigned i = 0; i < QUEUES; i++)
                virtio_queue(&v->virtio, QUEUE_SIZE);
        int listen_fd;
        if (vsock_listen(path, &listen_fd, &err) < 0 ||
            vsock_peers_create(listen_fd, path, CID, &v->peers, &err) < 0 ||
            worker_create("unused", JAIL_VSOCK_PEERS, work, v, -1, &v->worker, &err) < 0)
                abort();
        *ret_listener = unix_socket(listener_path, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct vsock vsock;
        static int listener = -1;
        static const char hello[] = "CONNECT 9\nand some data for the guest";
        static char bytes[65536];
        if (listener < 0)
                setup(&vsock, &listener);
        int client = unix_socket(path, false);
        if (send(client, hello, strlen(hello), MSG_NOSIGNAL) < 0)
                abort();
        fuzz_device_begin(&vsock.virtio, data, size);
        work(&vsock);
        int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0)
                (void)!recv(accepted, bytes, sizeof(bytes), 0);
        (void)!recv(client, bytes, sizeof(bytes), 0);
        work(&vsock);
        close(client);
        if (accepted >= 0)
                close(accepted);
        work(&vsock);
        vsock_peers_reset(vsock.peers);
        return 0;
}
