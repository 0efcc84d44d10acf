# shellcheck shell=bash disable=SC2154  # `sources` comes from who sources it
# Fetches packages by their registries' ordinary clients, and checks them. To be sourced by a script that takes a folder
# and sets `sources`, a list of
#     NAME|KIND|PACKAGE|SHA256|WHAT|LICENCE
# where NAME is how the file's name begins, and KIND is pypi, npm, debian, or debian-index, an index of package
# descriptions that apt fetches (Translation-LANGUAGE). Sets `dir`, the folder, and `packages`, the folder in it for
# the packages. Nothing is installed, nothing needs root.

if (($# != 1)) || [[ $1 == -* ]]; then
    echo "usage: ${0##*/} DIR" >&2
    exit 2
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
packages=$dir/packages

# Fetches what is not there already, and checks every file. What cannot be had is told and becomes one of
# `missing`; the rest goes on. A file that is not what it should be ends the script.
fetch_all() {
    local source name kind package sha256 what
    missing=()
    mkdir -p "$packages"
    rm -rf "$packages/.apt" # of a run that was cut short
    for source in "${sources[@]}"; do
        IFS='|' read -r name kind package sha256 what _ <<<"$source"
        if [[ ! $(file_of "$name" "$kind") ]]; then
            echo "fetching $package ($kind)" >&2
            rm -rf "$packages/.part"
            mkdir "$packages/.part"
            if "fetch_${kind/-/_}" "$package"; then
                find "$packages/.part" -maxdepth 1 -type f -exec mv {} "$packages/" \;
            fi
        fi
        if [[ $(file_of "$name" "$kind") ]]; then
            check "$(file_of "$name" "$kind")" "$kind" "$package" "$sha256"
        else
            echo "note: $package ($kind) could not be had; going on without it: $what" >&2
            missing+=("$name")
        fi
    done
    rm -rf "$packages/.part" "$packages/.apt"
}

# The file of a package that is there; nothing where there is none.
file_of() { # NAME KIND
    case $2 in
        debian) compgen -G "$packages/$1_*.deb" | head -n 1 ;;
        debian-index) compgen -G "$packages/$1" ;;
        *) compgen -G "$packages/$1-[0-9]*" | head -n 1 ;;
    esac
}

fetch_pypi() { # PACKAGE==VERSION
    has python3 && python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$packages/.part" "$1"
}

fetch_npm() { # PACKAGE@VERSION
    has npm && (cd "$packages/.part" && npm pack --silent "$1" >/dev/null)
}

# Debian keeps one or two versions of a package. Where the one asked for is gone, the one that is there does.
fetch_debian() { # PACKAGE=VERSION
    has apt-get && has dpkg-deb && apt_lists || return 1
    (cd "$packages/.part" && { own_apt download "$1" 2>/dev/null || own_apt download "${1%%=*}"; })
}

fetch_debian_index() { # Translation-LANGUAGE
    has apt-get && apt_lists || return 1
    local file
    # Of several suites, the distribution itself has the most packages.
    file=$(find "$packages/.apt/lists" -name "*_i18n_$1" -printf '%s %p\n' | sort -rn | head -n 1 | cut -d ' ' -f 2-)
    [[ $file ]] && cp "$file" "$packages/.part/$1"
}

# Lists of one's own, as nobody else may write the system's; in all languages that are asked for here.
apt_lists() {
    [[ -d $packages/.apt/lists ]] && return
    mkdir -p "$packages/.apt/lists/partial"
    own_apt update || echo "note: apt could not read all of its sources" >&2
}

own_apt() {
    apt-get -qq -o "Dir::State::Lists=$packages/.apt/lists" -o "Dir::Cache=$packages/.apt/cache" \
        -o Acquire::Languages=en,es -o Acquire::GzipIndexes=false -o APT::Sandbox::User= "$@"
}

has() { # PROGRAM
    command -v "$1" >/dev/null || {
        echo "note: no $1 here" >&2
        return 1
    }
}

# Compares a file with its checksum. Of Debian another version may be there, whose signature apt has checked.
check() { # FILE KIND PACKAGE SHA256
    local file=${1##*/} found version=${3#*=}
    found=$(sha256sum "$1" | cut -d ' ' -f 1)
    [[ $found == "$4" ]] && return
    if [[ $2 == debian-index || ($2 == debian && $file != *"_${version/:/%3a}_"*) ]]; then
        echo "note: $file has taken the place of $3, which texts were made of here; made of it they may differ" >&2
        return
    fi
    echo "error: $1 is not the package that is asked for: its SHA-256 is $found, not $4. Delete it to fetch it anew." >&2
    exit 1
}

# Prints what the packages are, and their licences.
licences() {
    local source kind package what licence
    echo
    echo "from, and under whose licence:"
    for source in "${sources[@]}"; do
        IFS='|' read -r _ kind package _ what licence <<<"$source"
        printf '  %-12s %-48s %s: %s\n' "$kind" "$package" "$what" "$licence"
    done
}
