/* Which mounts an instance gets: --volume, --mount, --tmpfs, --volumes-from and its
 * image's volumes, brought into one list. Pure; nothing is made or looked at here. */
#pragma once

#include "engine/instance.h"

/* A volume that has to exist before the instance starts. */
struct mount_volume {
        char *name;
        bool anonymous;
        char **labels; /* map */
};

/* A directory that `docker run -v /x:/y` makes where it is missing. */
struct mount_plan {
        struct instance_mount *mounts; /* sorted: parents before what lies in them */
        size_t mounts_length;
        struct mount_volume *volumes;
        size_t volumes_length;
        char **host_dirs;     /* to be made where missing */
        char **host_required; /* must exist */
};

/* An instance named by --volumes-from. */
struct mount_donor {
        const struct instance_mount *mounts;
        size_t mounts_length;
        bool read_only;
};

/* `image_volumes` are the paths an image declares; `volumes_dir` is ROOT/volumes. */
int mount_plan_make(const struct instance_spec *spec, char *const *image_volumes,
                    const struct mount_donor *donors, size_t donors_length, const char *volumes_dir,
                    struct mount_plan *ret, struct err *err);
void mount_plan_finish(struct mount_plan *plan);
/* Members of a list of mounts. */
void instance_mounts_free(struct instance_mount *mounts, size_t length);

/* Splits "name[:ro|rw]" of --volumes-from; *ret_name is heap. */
int volumes_from_parse(const char *text, char **ret_name, bool *ret_read_only, struct err *err);
