/* Inside of sys/cgroup: what the providers share. Not for other rooms. */
#pragma once

#include "base/buf.h"
#include "sys/cgroup.h"

#define CGROUP_FILE_SIZE_MAX   ((size_t)1 << 20)
#define CGROUP_HIERARCHIES_MAX 16
#define CGROUP_DEPTH_MAX       32 /* of groups below ours that are walked */

struct cgroup_hierarchy {
        uint32_t controllers; /* CGROUP_BIT set that is mounted here; 0 in version 2 */
        char *directory;      /* absolute path of our group */
        char *mount; /* where the hierarchy is mounted; NULL when opened from a state file */
};

struct cgroup;

struct cgroup_ops {
        int (*create)(struct cgroup *, struct err *);
        int (*apply)(struct cgroup *, const struct cgroup_limits *, struct err *);
        int (*attach)(struct cgroup *, pid_t, struct err *);
        int (*extend)(struct cgroup *, uint32_t controllers, struct err *);
        int (*join)(struct cgroup *, uint32_t controllers, struct err *);
        int (*set_frozen)(struct cgroup *, bool frozen, struct err *);
        int (*is_frozen)(struct cgroup *, struct err *);
        int (*kill_all)(struct cgroup *, struct err *);
        int (*stats)(struct cgroup *, struct cgroup_stats *, struct err *);
        int (*oom_kills)(struct cgroup *, uint64_t *, struct err *);
        int (*oom_watch)(struct cgroup *, int *ret_fd, struct err *);
};

struct cgroup {
        const struct cgroup_ops *ops;
        struct cgroup_hierarchy hierarchies[CGROUP_HIERARCHIES_MAX];
        size_t length;
        char **paths; /* what cgroup_paths() gives */
};

extern const struct cgroup_ops cgroup_v1_ops, cgroup_v2_ops;

/* cgroup_members() of the one directory and those below it; none where it is not there. */
int cgroup_members_at(const char *directory, pid_t **ret_pids, size_t *ret_length, struct err *err);

/* Where the hierarchies are and where the caller is in them. */
struct cgroup_place {
        uint32_t controllers; /* 0: the version 2 tree */
        char *mount;
        char *own; /* the caller's group, beginning with '/' */
};

struct cgroup_host {
        enum cgroup_mode mode;
        struct cgroup_place places[CGROUP_HIERARCHIES_MAX];
        size_t length;
};

#define CGROUP_ALL UINT32_MAX
/* The version 2 tree, and of version 1 the hierarchies with a controller that is `wanted`. */
int cgroup_host_read(struct cgroup_host *ret, uint32_t wanted, struct err *err);
void cgroup_host_finish(struct cgroup_host *host);
/* Fills places from the text of /proc/self/cgroup; `root` is /sys/fs/cgroup. Pure. */
void cgroup_host_parse(struct cgroup_host *host, const char *text, const char *root);

/* The hierarchy with the controller, or NULL. */
struct cgroup_hierarchy *cgroup_hierarchy(struct cgroup *cgroup, enum cgroup_controller controller);
void cgroup_add_hierarchy(struct cgroup *cgroup, uint32_t controllers, char *directory_taken,
                          const char *mount);

/* Files of a group. Errors name the file. */
int cgroup_put(const char *directory, const char *file, const char *text, struct err *err);
/* The two halves of cgroup_put(), for several writes. */
int cgroup_open_file(const char *directory, const char *file, int flags, int *ret_fd,
                     struct err *err);
int cgroup_write(int fd, const char *directory, const char *file, const char *text,
                 struct err *err);
int cgroup_put_number(const char *directory, const char *file, int64_t value, struct err *err);
int cgroup_get(const char *directory, const char *file, char **ret_text, struct err *err);
/* The number in a file; "max" and absent files give `otherwise`. */
uint64_t cgroup_get_number(const char *directory, const char *file, uint64_t otherwise);
/* The number after "key " in text of "key number" lines. */
uint64_t cgroup_find_number(const char *text, const char *key, uint64_t otherwise);
char **cgroup_lines(const char *text); /* "a 1\nb 2\n" -> {"a=1", "b=2"} */

/* mkdir with parents; `fresh` is called for every directory made. */
typedef int cgroup_fresh(const char *directory, void *arg, struct err *err);
int cgroup_make_directory(const char *mount, const char *directory, cgroup_fresh *fresh, void *arg,
                          struct err *err);

int cgroup_v1_apply_devices(const char *directory, const struct cgroup_limits *limits,
                            struct err *err);
/* Replaces the device program of a version 2 group. */
int cgroup_bpf_devices(struct cgroup *cgroup, const struct cgroup_device_rule *rules, size_t length,
                       struct err *err);
/* The io statistics of one device, added where new. */
struct cgroup_io_stat *cgroup_io_of(struct cgroup_stats *stats, uint64_t major, uint64_t minor);
