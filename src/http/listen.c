#include "http/listen.h"

#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/auto.h"
#include "base/str.h"

#define BACKLOG 256

/* Whether somebody listens at a Unix address. */
static bool is_answered(const struct sockaddr_un *address)
{
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        return fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                           errno == EAGAIN);
}

/* Makes way for a new socket at the address. */
static int clear_path(const struct sockaddr_un *address, struct err *err)
{
        const char *path = address->sun_path;
        struct stat st;
        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0 : err_set(err, errno, "stat '%s'", path);
        if (!S_ISSOCK(st.st_mode))
                return err_plain(err, EEXIST, "'%s' exists and is not a socket", path);
        if (is_answered(address))
                return err_plain(err, EADDRINUSE, "another server already listens on '%s'", path);
        if (unlink(path) < 0 && errno != ENOENT)
                return err_set(err, errno, "remove the stale socket '%s'", path);
        return 0;
}

int http_listen_unix(const char *path, mode_t mode, gid_t gid, int *ret_fd, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        if (str_empty(path) || strlen(path) >= sizeof(address.sun_path))
                return err_plain(err, ENAMETOOLONG, "socket path '%s' is empty or too long", path);
        strcpy(address.sun_path, path);
        int r = clear_path(&address, err);
        if (r < 0)
                return r;
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return err_set(err, errno, "create socket");
        /* The inode gets its mode from the descriptor: nobody can connect in between
         * who may not afterwards. */
        if (fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return err_set(err, errno, "listen on '%s'", path);
        /* At once: who sees the name finds somebody there. */
        if (listen(fd, BACKLOG) < 0 || chmod(path, mode) < 0 ||
            (gid != (gid_t)-1 && chown(path, (uid_t)-1, gid) < 0)) {
                r = err_set(err, errno, "listen on '%s'", path);
                unlink(path);
                return r;
        }
        *ret_fd = take_fd(fd);
        return 0;
}

static int bind_tcp(const struct addrinfo *at, int *ret_fd)
{
        auto_fd fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        int on = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
                return -errno;
        *ret_fd = take_fd(fd);
        return 0;
}

int http_listen_tcp(const char *address, int *ret_fd, struct err *err)
{
        auto_free char *host = xstrdup(address);
        char *port = strrchr(host, ':');
        if (!port || !port[1])
                return err_plain(err, EINVAL, "'%s' is not HOST:PORT", address);
        *port++ = '\0';
        char *name = host;
        size_t length = strlen(name);
        if (length >= 2 && name[0] == '[' && name[length - 1] == ']') {
                name[length - 1] = '\0';
                name++;
        }
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
        struct addrinfo *found;
        int r = getaddrinfo(*name ? name : NULL, port, &hints, &found);
        if (r != 0)
                return err_plain(err, EINVAL, "cannot resolve '%s': %s", address, gai_strerror(r));
        r = -EADDRNOTAVAIL;
        for (struct addrinfo *at = found; at && r < 0; at = at->ai_next)
                r = bind_tcp(at, ret_fd);
        freeaddrinfo(found);
        return r < 0 ? err_set(err, -r, "listen on '%s'", address) : 0;
}

int http_listen(const char *url, gid_t gid, int *ret_fd, struct err *err)
{
        const char *rest;
        if ((rest = str_after(url, "unix://")))
                return http_listen_unix(rest, 0660, gid, ret_fd, err);
        if ((rest = str_after(url, "tcp://")))
                return http_listen_tcp(rest, ret_fd, err);
        return err_plain(err, EINVAL,
                         "cannot listen on '%s': write unix:///PATH or tcp://HOST:PORT", url);
}
