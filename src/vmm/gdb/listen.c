#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/listen.h"
#include "vmm/gdb/server.h"

const char *gdb_socket_path(const char *where)
{
        return str_after(where, "unix:");
}

int gdb_listen(const char *where, int *ret_fd, struct err *err)
{
        const char *path = gdb_socket_path(where), *address = str_after(where, "tcp:");
        if (path && *path)
                return http_listen_unix(path, 0600, (gid_t)-1, ret_fd, err);
        if (!address)
                return err_plain(err, EINVAL,
                                 "--gdb '%s': write tcp:[HOST]:PORT, as tcp::1234, or unix:PATH",
                                 where);
        auto_free char *local = xasprintf("localhost%s", address);
        return http_listen_tcp(*address == ':' ? local : address, ret_fd, err);
}
